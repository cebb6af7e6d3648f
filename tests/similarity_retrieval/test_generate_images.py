"""Images for CIG: with a stand-in pipeline always, with a tiny one of diffusers where it is."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from checkpoints import hf
from PIL import Image, ImageOps

from similarity_retrieval import generate_images
from similarity_retrieval.datasets import TASKS, load
from similarity_retrieval.rivals.cig import file_names


class Pipeline:
    """Turns the reference's colors round; the first `dark` images are nearly black."""

    def __init__(self, dark=0, stop=None):
        self.calls, self.dark, self.stop = [], dark, stop

    def __call__(self, *, prompt, image, strength, num_inference_steps, generator):
        if len(self.calls) == self.stop:
            raise KeyboardInterrupt
        self.calls.append((prompt, generator.initial_seed(), strength, num_inference_steps))
        picture = ImageOps.invert(image)
        if len(self.calls) <= self.dark:
            picture = Image.new("RGB", image.size, (10, 10, 10))
        return SimpleNamespace(images=[picture])


@pytest.fixture
def command(genecis, monkeypatch):
    """generate_images.py on the small GeneCIS, with a pipeline."""

    def command(pipeline, *more):
        monkeypatch.setattr(generate_images, "load_pipeline", lambda config: pipeline)
        where = f"root={genecis}", f"outputs={genecis.parent}/out", "size=64", "steps=4"
        return generate_images.main, *where, *more

    return command


def contents(genecis):
    folder = genecis.parent / "out/genecis_generated/run"
    return {file.name: file.read_bytes() for file in folder.glob("[!.]*")}


def test_an_image_for_each_pair_and_a_killed_run_goes_on(run, output, command, genecis):
    tasks, data = f"tasks=[{', '.join(TASKS)}]", load(TASKS, genecis)
    names = {name for t in data.tasks.values() for name in file_names(data, t)}
    killed, second, third = Pipeline(stop=5), Pipeline(), Pipeline()
    assert run(*command(killed, tasks, "seed=7"))[0] == 130 and len(contents(genecis)) == 6
    printed = output(*command(second, tasks, "seed=7"))
    assert f"{len(names)} images, {len(names) - 5} of them new: " in printed
    whole = contents(genecis)
    assert whole.keys() == names | {"settings.json"} and len(second.calls) == len(names) - 5
    assert {call[1:] for call in second.calls} == {(7, 0.8, 4)}
    assert ("a photo with a dog", 7, 0.8, 4) in second.calls
    output(*command(third, tasks, "seed=7"))
    assert not third.calls and contents(genecis) == whole
    reference = Image.open(genecis / f"coco/val2017/{0:012d}.jpg").convert("RGB")
    made = next(name for name in names if name.startswith("0_"))
    with Image.open(genecis.parent / "out/genecis_generated/run" / made) as picture:
        expected = ImageOps.invert(ImageOps.fit(reference, (64, 64)))
        assert np.array_equal(np.asarray(picture), np.asarray(expected))


@pytest.mark.parametrize(("dark", "seeds"), [(2, [3, 4, 5]), (9, [3, 4, 5, 6, 7, 8])])
def test_a_nearly_black_image_is_made_again(run, command, dark, seeds):
    pipeline = Pipeline(dark)
    code, _, errors = run(*command(pipeline, "seed=3", "tasks=focus_object"))
    assert code == 0 and [seed for _, seed, *_ in pipeline.calls[: len(seeds)]] == seeds
    assert pipeline.calls[len(seeds)][1] == 3
    assert ("nearly black with 6 seeds; kept" in errors) == (dark == 9)


def test_mistakes(output, refusal, command, genecis, monkeypatch):
    output(*command(Pipeline()))
    error = refusal(*command(Pipeline(), "prompt=a {condition}"))
    assert error.endswith("holds images of other settings; take another name=, or delete it")
    assert "prompt" in refusal(*command(Pipeline(), "prompt=dog"))
    picture = genecis / f"coco/val2017/{0:012d}.jpg"
    picture.write_bytes(b"none")
    assert refusal(*command(Pipeline(), "name=other")).startswith("cannot read the image 0: ")
    make, *where = command(None)
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "diffusers", None)
    assert "pip install -e '.[generate]'" in refusal(make, *where, "name=third")
    assert not (genecis.parent / "out/genecis_generated/third").exists()


def test_a_tiny_random_pipeline(output, refusal, genecis, tmp_path):
    diffusers = pytest.importorskip("diffusers")
    words = [chr(i) for i in range(97, 123)]
    words += [f"{w}</w>" for w in words] + ["<|startoftext|>", "<|endoftext|>"]
    tokenizer = hf.CLIPTokenizer(vocab={w: i for i, w in enumerate(words)}, merges=[],
                              model_max_length=8)  # fmt: skip
    text = hf.CLIPTextConfig(vocab_size=len(words), hidden_size=32, intermediate_size=32,
                          num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=8,
                          bos_token_id=52, eos_token_id=53)  # fmt: skip
    down, up = ["DownEncoderBlock2D"], ["UpDecoderBlock2D"]
    small = {"block_out_channels": (32,), "layers_per_block": 1}
    unet = diffusers.UNet2DConditionModel(
        sample_size=8, cross_attention_dim=32, attention_head_dim=2, **small,
        down_block_types=["CrossAttnDownBlock2D"], up_block_types=["CrossAttnUpBlock2D"],
    )  # fmt: skip
    diffusers.StableDiffusionPipeline(
        vae=diffusers.AutoencoderKL(down_block_types=down, up_block_types=up, latent_channels=4,
                                    **small),
        text_encoder=hf.CLIPTextModel(text), tokenizer=tokenizer, unet=unet,
        scheduler=diffusers.DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None, feature_extractor=None,
    ).save_pretrained(tmp_path / "tiny")  # fmt: skip
    where = f"root={genecis}", f"outputs={tmp_path}/out", "size=64", "steps=2", "device=cpu"
    make = generate_images.main, *where, "tasks=focus_object"
    assert " of them new: " in output(*make, f"model={tmp_path}/tiny")
    first = contents(genecis)
    next((tmp_path / "out/genecis_generated/run").glob("*.png")).unlink()
    output(*make, f"model={tmp_path}/tiny")
    assert contents(genecis) == first  # the same seed gives the same image
    (tmp_path / "tiny/model_index.json").unlink()
    error = refusal(*make, "name=other", f"model={tmp_path}/tiny")
    assert error.startswith(f"diffusers cannot load {tmp_path}/tiny for image to image: ")
