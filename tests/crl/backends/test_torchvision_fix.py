from commands import run_python


def test_torchvision_whose_operators_do_not_load(tmp_path):
    """A stand-in that fails as the CUDA wheel does beside a CPU-only torch: half-way."""
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "early.py").write_text("")
    (package / "late.py").write_text(
        "import torch, torchvision.early\n"
        "torchvision.early\n"  # an attribute that a half-imported package does not get again
        "torch.library.register_fake('torchvision::nms')(lambda *_: None)\n"
        "torch.library.register_fake('torchvision::qnms')(lambda *_: None)\n"
    )
    (package / "__init__.py").write_text("from torchvision import early, late\nwhole = True\n")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from crl.backends.torchvision_fix import import_torchvision\n"
        "import_torchvision(); import_torchvision()\n"
        "import torchvision; print(torchvision.whole, torchvision.__file__)"
    )
    answer = run_python("-c", code, tmp_path).stdout.split()
    assert answer == ["True", str(package / "__init__.py")]
