"""What goes wrong while a model is fetched; see test_published_weights.py too."""

import errno

import pytest
from commands import run_python

from crl.backends.hub import explained

FETCH = """
from crl.run.errors import Missing
from crl.vlm import load_vlm
for name in ("clip", "align", "blip2"):
    try:
        load_vlm(name)
    except Missing as error:
        print(error)
        assert error.__suppress_context__  # no library's traceback above ours
"""


def test_without_a_network_one_line_names_the_ways_out(tmp_path):
    """Nobody answers at the hub's address: one look is enough, no second try."""
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "")
    address = "http://127.0.0.1:9"
    done = run_python("-c", FETCH, HF_ENDPOINT=address, HF_HOME=str(tmp_path), **proxies)
    sources = ("ViT-B-32-quickgelu/openai", "kakaobrain/align-base", "Salesforce/blip2-itm-vit-g")
    lines = done.stdout.splitlines()
    assert len(lines) == 3 and "Retrying" not in done.stderr, done.stderr
    for line, source in zip(lines, sources, strict=True):
        assert "cannot fetch" in line and source in line
        assert "vlm=demo" in line and "local folder" in line and "HF_HOME" in line


def test_a_full_disk_is_no_fault_of_the_hub():
    with pytest.raises(OSError, match="No space left"), explained("clip", remote=False):
        raise OSError(errno.ENOSPC, "No space left on device")
