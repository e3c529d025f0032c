"""A killed evaluation continues where it stopped, and never with the work of another."""

from hypothesis import given
from hypothesis import strategies as st
from snaketune.contracts.evaluate import Prediction
from snaketune.evaluate.predict import ResumeLog


def prediction(name, **more):
    return Prediction(id=name, prompt="what is ä\nriver?", **more)


def written(path, predictions, fingerprint="one"):
    with ResumeLog(path, fingerprint) as log:
        for one in predictions:
            log.add(one.id, one)
    return log


@given(st.data())
def test_log_cut_off_at_any_byte_keeps_its_whole_lines_and_takes_more(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("log") / "unfinished.jsonl"
    made = [prediction(f"row {i}", answer="ä\n" * i) for i in range(4)]
    written(path, made)
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    with ResumeLog(path, "one") as log:
        kept = list(log.predictions.values())
        assert kept == made[: len(kept)]
        log.add("more", prediction("more"))
    with ResumeLog(path, "one") as log:
        assert list(log.predictions.values()) == [*kept, prediction("more")]


def test_prediction_that_is_scored_and_then_answered_counts_twice_and_is_kept_whole(tmp_path):
    path = tmp_path / "unfinished.jsonl"
    scored, answered = prediction("a", logprob=-1.5), prediction("a", logprob=-1.5, answer="a river")
    written(path, [scored, answered])
    with ResumeLog(path, "one") as log:
        assert (log.predictions, log.num_lines) == ({"a": answered}, 2)


def test_log_with_another_fingerprint_is_discarded(tmp_path):
    path = tmp_path / "unfinished.jsonl"
    written(path, [prediction("a")])
    assert written(path, [], "two").predictions == {}
    assert written(path, [], "one").predictions == {}


def test_finished_log_is_deleted(tmp_path):
    path = tmp_path / "unfinished.jsonl"
    written(path, [prediction("a")]).finish()
    assert not path.exists()
