"""What does not fit into the context is cut or scored in pieces, and nothing is lost or counted twice."""

from hypothesis import given
from hypothesis import strategies as st
from snaketune.engines.decoding import shared_prefix, sliding_windows, truncate_left


@given(st.integers(1, 200), st.integers(4, 40), st.data())
def test_every_target_is_scored_in_exactly_one_piece_with_half_a_context_before_it(length, context, data):
    ids = list(range(length))
    targets = [False, *data.draw(st.lists(st.booleans(), min_size=length - 1, max_size=length - 1))]
    scored = []
    for part, mask in sliding_windows(ids, targets, context):
        assert len(part) == len(mask) <= context
        assert part[0] == 0
        assert not mask[0]
        for place, one in enumerate(mask):
            if one:
                scored.append(part[place])
                before = ids[part[place]] if len(ids) <= context else min(part[place], context // 2 - 1)
                assert place >= before
    assert scored == [i for i in ids if targets[i]]


@given(st.integers(1, 300), st.integers(4, 100), st.integers(1, 300))
def test_a_prompt_and_its_answer_always_fit_and_the_prompts_end_is_kept(length, context, wanted):
    prompt = list(range(length))
    ids, max_new_tokens, num_cut = truncate_left(prompt, context, wanted)
    assert len(ids) + max_new_tokens <= context
    assert 1 <= max_new_tokens <= wanted
    assert ids[0] == 0
    assert len(ids) + num_cut == length
    assert ids[1:] == prompt[1 + num_cut :]


@given(st.integers(1, 50), st.integers(1, 50))
def test_a_prompt_that_fits_is_left_alone(length, wanted):
    assert truncate_left(list(range(length)), 200, wanted) == (list(range(length)), wanted, 0)


def test_a_beginning_is_shared_up_to_the_last_token_of_the_shortest():
    assert shared_prefix([[1] * 30, [1] * 20, [1] * 25]) == [1] * 19
    assert shared_prefix([list(range(30)), [*range(20), 99]]) == list(range(20))
    assert shared_prefix([[1] * 10, [1] * 10]) == []
    assert shared_prefix([[1] * 30]) == []
