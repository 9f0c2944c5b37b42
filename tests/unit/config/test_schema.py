"""What the settings mean beyond their types."""

from qwen_edge.config.schema import plain_origin


def test_origins_are_compared_as_browsers_send_them():
    assert plain_origin("HTTPS://Home.Example:443/") == plain_origin("https://home.example") == "https://home.example"
    assert plain_origin("http://home.example:443") == "http://home.example:443"
    assert plain_origin("http://[::1]:80") == "http://[::1]"
