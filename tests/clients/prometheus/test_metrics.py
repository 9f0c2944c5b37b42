"""What Prometheus reads, with the parser of its own Python library."""

import json
import urllib.request

from prometheus_client.parser import text_string_to_metric_families


def families(daemon) -> dict:
    return {family.name: family for family in text_string_to_metric_families(daemon.get("/metrics").decode())}


def ask(daemon) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "@say It is on."}]}).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {daemon.key}"}
    urllib.request.urlopen(urllib.request.Request(f"{daemon.v1}/chat/completions", body, headers)).close()


def test_every_line_is_parsed_and_every_metric_is_described(scripted):
    found = families(scripted)
    ours = [family for name, family in found.items() if name.startswith("qwen_edge_")]
    assert len(ours) > 10
    assert all(family.documentation and family.type != "unknown" for family in ours)


def test_an_answer_is_counted(scripted):
    before = families(scripted)["qwen_edge_completion_tokens"].samples[0].value
    ask(scripted)
    after = families(scripted)["qwen_edge_completion_tokens"].samples[0].value
    assert after - before == len("It is on.") + 1


def test_a_histogram_adds_up(demo):
    ask(demo)
    samples = families(demo)["qwen_edge_answer_seconds"].samples
    buckets = [sample.value for sample in samples if sample.name.endswith("_bucket")]
    (count,) = [sample.value for sample in samples if sample.name.endswith("_count")]
    assert buckets == sorted(buckets)
    assert buckets[-1] == count >= 1
