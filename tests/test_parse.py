"""Rule text: the inverse of repr, and errors that point at the place."""

import pytest
from catalog import CATALOG, LEAVES
from hypothesis import given
from hypothesis import strategies as st

from convergence import Lookahead, NonFinite, Patience, Rearm, SmoothedSlope, Target, WarmUp, parse_rule
from convergence.parse import DEEPEST, LONGEST

RULES = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: st.one_of(
        st.builds(lambda a, b: a | b, inner, inner),
        st.builds(lambda a, b: a & b, inner, inner),
        st.builds(WarmUp, inner, st.integers(0, 50)),
        st.builds(Rearm, inner, st.sampled_from([0.1, 0.5])),
    ),
    max_leaves=8,
)


@given(rule=RULES, metric=st.text(min_size=1, max_size=12), mode=st.sampled_from(["min", "max"]))
def test_repr_and_parse_are_inverse(rule, metric, mode):
    assert parse_rule(repr(rule)) == rule
    assert repr(parse_rule(repr(rule))) == repr(rule)
    bound = rule.on(metric, mode=mode)
    assert parse_rule(repr(bound)) == bound


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("Patience(5)", Patience(5)),
        ("  Patience ( patience = 5 )\n", Patience(5)),
        ("Patience(5, min_delta=1e-3)", Patience(5, min_delta=0.001)),
        ("Target(-0.5)", Target(-0.5)),
        (
            "Patience(5) & SmoothedSlope(20, tol=0.001) | NonFinite()",
            (Patience(5) & SmoothedSlope(20, tol=0.001)) | NonFinite(),
        ),
        ("NonFinite() | Patience(5) & Lookahead(3)", NonFinite() | (Patience(5) & Lookahead(3))),
        ("(NonFinite() | Patience(5)) & Lookahead(3)", (NonFinite() | Patience(5)) & Lookahead(3)),
        ("WarmUp(Rearm(Patience(3)), 10)", WarmUp(Rearm(Patience(3)), 10)),
        ("Rearm(Patience(3), drop=0.5)", Rearm(Patience(3), 0.5)),
        ("Patience(5).on('val_acc', mode='max')", Patience(5).on("val_acc", mode="max")),
        ("(Patience(5) | NonFinite()).on('a')", (Patience(5) | NonFinite()).on("a")),
    ],
)
def test_texts(text, rule):
    assert parse_rule(text) == rule


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("Patience(5", "does not parse"),
        ("Patience(5))", r"does not parse.*character 12"),
        ("Patience 5", "does not parse"),
        ("Patiense(5)", r"unknown rule 'Patiense', did you mean 'Patience'\? At character 1"),
        ("NonFinite() | lookahed(2)", r"did you mean 'Lookahead'\? At character 15"),
        ("Zzzz(5)", "unknown rule 'Zzzz'; there are: .*Patience"),
        ("Patience(5, min_detla=1)", "unknown parameter of Patience 'min_detla', did you mean 'min_delta'"),
        ("Patience", r"Patience needs parentheses"),
        ("Patience()", "patience"),
        ("Patience(1, 2)", "Patience: too many positional arguments; it takes"),
        ("Patience(5, patience=5)", "Patience: multiple values"),
        ("Patience(0)", "patience must be at least 1, got 0"),
        ("Patience('5')", "patience must be a whole number, got '5'"),
        ("Patience(True)", "patience must be a whole number, got True"),
        ("Patience(5, min_delta=nan)", "min_delta must be finite, got nan"),
        ("Patience(5, min_delta=inf)", "min_delta must be finite, got inf"),
        ("Patience(5, min_delta=-1)", "min_delta must be at least 0, got -1"),
        ("SmoothedSlope(1, tol=0)", "window must be at least 2, got 1"),
        ("SmoothedSlope(5)", "tol"),
        ("WarmUp(5, 5)", "WarmUp needs a rule, got 5"),
        ("WarmUp(Patience(5), -1)", "observations must be at least 0, got -1"),
        ("5", "expected a rule"),
        ("Patience(5) + Patience(3)", "expected a rule"),
        ("Patience(5) and Patience(3)", "with | and &"),
        ("Patience(*[5])", "expected a number"),
        ("Patience(**{'patience': 5})", r"\*\* is not allowed"),
        ("Patience([5])", "expected a number"),
        ("Patience(5).off('a')", "only .on"),
        ("Patience(5).on('a').on('b')", "bound already"),
        ("Patience(5).on('a', mode='up')", "mode must be 'min' or 'max', got 'up'"),
        ("__import__('os').system('true')", "only .on"),
        ("(lambda: Patience(5))()", "expected a rule"),
        ("Patience(5) if 1 else Patience(3)", "expected a rule"),
        ("Patience(__class__)", "unknown rule"),
        ("Patience(5)\x00", "null"),
        ("Patience(5); import os", "does not parse"),
        ("Patience(b'5')", "expected a number"),
        ("Patience(5j)", "expected a number"),
        ("Patience(f'{5}')", "expected a number"),
        ("x" * 1_000_000, f"at most {LONGEST:,} characters, got 1,000,000"),
        ("(" * 2_000 + "Patience(5)" + ")" * 2_000, "does not parse|nested"),
        ("WarmUp(" * 40 + "Patience(5)" + ",1)" * 40, f"more than {DEEPEST} deep"),
        ("Target(1" + "0" * 400 + ")", "too large"),
        ("Patience(0x1" + "0" * 4000 + ")", "too large"),
        ("Patience(100000000000000000000)", "patience must be at most"),
        ("2if 1else 2", "expected a rule"),
        ("Patience(5)\u2028\x1b", "does not parse"),
        ("-" * 5_000 + "1", "expected a rule|nested|does not parse"),
        ("Patience(" + "-" * 5_000 + "1)", "expected a number|nested|does not parse"),
    ],
)
def test_errors_are_one_sentence_that_points_at_the_place(text, said):
    with pytest.raises(ValueError, match=said) as caught:
        parse_rule(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_text_must_be_text():
    with pytest.raises(TypeError, match="must be a string, got 5"):
        parse_rule(5)


def test_a_long_chain_is_one_combination():
    rule = parse_rule(" | ".join(f"Patience({k})" for k in range(1, 301)))
    assert len(rule.members) == 300


@given(text=st.text(alphabet="Patience()&|.,on5='\"[]{}: \n-+*/\\\0é", max_size=60))
def test_any_text_is_a_rule_or_a_value_error(text):
    try:
        rule = parse_rule(text)
    except ValueError:
        return
    assert parse_rule(repr(rule)) == rule


@pytest.mark.parametrize("rule", CATALOG, ids=repr)
def test_numpy_parameters_show_as_plain_numbers(rule):
    import numpy as np

    assert repr(Patience(np.int64(5), min_delta=np.float64(0.5))) == "Patience(5, min_delta=0.5)"
    assert "np." not in repr(rule)
