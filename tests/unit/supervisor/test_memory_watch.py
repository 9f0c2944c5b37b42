from qwen_edge.supervisor.memory_watch import MemoryWatch

_PLANNED, _TOO_MUCH = 1_000_000_000, 2_000_000_000


def test_what_an_engine_has_for_a_moment_is_no_leak_and_what_stays_is():
    size, now = [_PLANNED], [0.0]
    growth = MemoryWatch(None, lambda pid: size[0], lambda: now[0], 60.0)
    growth.plan(7, 0)

    def seen_after(seconds: float, bytes_: int) -> bool:
        now[0], size[0] = now[0] + seconds, bytes_
        growth.check(7)
        return growth.exceeded

    for _ in range(100):  # a KV cache that grows, again and again
        assert not seen_after(40, _TOO_MUCH)
        assert not seen_after(19, _TOO_MUCH)
        assert not seen_after(2, _PLANNED)
    assert not seen_after(1, _TOO_MUCH)
    assert seen_after(60, _TOO_MUCH)
    assert seen_after(1, _PLANNED), "it is still the engine that has grown"
    growth.plan(8, 0)
    assert not growth.exceeded
    assert not seen_after(1, _TOO_MUCH), "time counts for each engine"
