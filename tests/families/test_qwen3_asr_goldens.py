"""Every golden of the small trained checkpoints: the same ids, log-probabilities and classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qwen3_goldens as q

LOGPROB_TOLERANCE = 5e-5  # measured 2e-6 with F32 weights
CLASS_TOLERANCE = 2e-4  # of logits up to 9; measured 3e-5
Make = Callable[..., Path]


@pytest.fixture(scope="module")
def session_of(micro_gguf: Make) -> Callable[..., Any]:
    import rustasr

    made: dict[tuple[str, ...], Any] = {}

    def session(*which: str) -> Any:
        if which not in made:
            made[which] = rustasr._core.Model(str(micro_gguf(*which)), "cpu", 2).session()
        return made[which]

    return session


def transcribe(session: Any, folder: Path, items: list[dict[str, Any]], **options: Any) -> list[Any]:
    import rustasr

    encoded = session.encode([q.features(session, q.samples(folder, item)) for item in items])
    assert encoded.lengths == [item["audio_tokens"] for item in items]
    chosen = rustasr._core.DecodeOptions(max_tokens=400, **options)
    return session.decode(encoded, list(range(len(items))), [item["prompt_ids"] for item in items], chosen)


@pytest.mark.parametrize("layout", ["original", "hf"])
def test_every_golden_is_said_with_its_log_probabilities(
    layout: str, shared_micro: Path, session_of: Callable[..., Any]
) -> None:
    folder, session = shared_micro / q.ASR, session_of(q.ASR, "f32", layout)
    items = q.goldens(folder)["items"]
    assert {item["variant"] for item in items} == {
        "plain", "forced", "context", "context_changes_text", "context_changes_text_forced", "concat"
    }  # fmt: skip
    worst = 0.0
    for item in items:
        (found,) = transcribe(session, folder, [item])
        assert [*found.tokens, item["generated_ids"][-1]] == item["generated_ids"], item["id"]
        assert found.finish == "stop"
        worst = max(worst, float(np.abs(np.array(found.logprobs) - item["logprobs"]).max()))
    assert worst < LOGPROB_TOLERANCE, worst


@pytest.mark.parametrize("qtype", ["f16", "bf16", "q8_0", "q6_k", "q4_0"])
def test_other_types_say_the_same(qtype: str, shared_micro: Path, session_of: Callable[..., Any]) -> None:
    """As the checkpoint's makers found for eight and four bits; all clips of a call at once."""
    folder, session = shared_micro / q.ASR, session_of(q.ASR, qtype)
    items = [item for item in q.goldens(folder)["items"] if item["variant"] == "plain"][::3]
    for item, found in zip(items, transcribe(session, folder, items), strict=True):
        assert [*found.tokens, item["generated_ids"][-1]] == item["generated_ids"], item["id"]


@pytest.mark.parametrize("layout", ["original", "hf"])
def test_aligner_classes(layout: str, shared_micro: Path, session_of: Callable[..., Any]) -> None:
    folder, session = shared_micro / q.ALIGNER, session_of(q.ALIGNER, "f32", layout)
    items, golden = q.goldens(folder)["items"], q.tensors(folder)
    encoded = session.encode([q.features(session, q.samples(folder, item)) for item in items])
    found = session.classify(
        encoded, [0, 1, 2], [i["input_ids"] for i in items], [i["slot_positions"] for i in items]
    )
    for item, logits in zip(items, found, strict=True):
        assert logits.argmax(axis=1).tolist() == item["classes"]
        np.testing.assert_allclose(logits, golden[item["id"] + "/slot_logits"], rtol=0, atol=CLASS_TOLERANCE)
        assert [80 * int(c) for c in logits.argmax(axis=1)] == item["raw_ms"]
    projected = session.encode_taps(
        [q.features(session, q.samples(folder, q.item(folder, "zh_xiangmu", None)))], ["output"]
    )
    np.testing.assert_allclose(
        projected["output"], golden["zh_xiangmu/projector"], rtol=0, atol=CLASS_TOLERANCE
    )


def test_a_model_refuses_the_other_ones_call(shared_micro: Path, session_of: Callable[..., Any]) -> None:
    from rustasr.errors import UnsupportedModelError

    item = q.item(shared_micro / q.ASR, "en_vm_savefolder")
    asr, aligner = session_of(q.ASR, "f32"), session_of(q.ALIGNER, "f32")
    for session, call in ((asr, "classify"), (aligner, "decode")):
        encoded = session.encode([q.features(session, q.samples(shared_micro / q.ASR, item))])
        with pytest.raises(UnsupportedModelError, match="aligner"):
            if call == "classify":
                session.classify(encoded, [0], [item["prompt_ids"]], [[0]])
            else:
                transcribe(session, shared_micro / q.ASR, [item])
