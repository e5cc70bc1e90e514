use proptest::prelude::*;

use super::*;

type Expression = (String, &'static str, Vec<String>);
/// Operator, values, labels, and whether they match.
type Case<'a> = (&'a str, &'a [&'a str], &'a [(&'a str, &'a str)], bool);

fn parse(
    labels: &[(&str, &str)],
    expressions: &[(&str, &str, &[&str])],
) -> Result<Option<LabelSelector>, Vec<String>> {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let texts = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
    let values: Vec<_> = expressions.iter().map(|(_, _, values)| texts(values)).collect();
    let match_expressions = expressions
        .iter()
        .zip(&values)
        .map(|((key, operator, _), values)| ExpressionFields { key, operator, values })
        .collect();
    LabelSelector::parse(&SelectorFields { match_labels: Some(&labels), match_expressions })
        .map_err(|faults| faults.iter().map(|fault| format!("{}: {}", fault.path, fault.problem)).collect())
}

#[test]
fn a_selector_without_a_requirement_is_none() {
    assert_eq!(LabelSelector::parse(&SelectorFields::default()), Ok(None));
    assert_eq!(parse(&[], &[]), Ok(None));
}

#[test]
fn every_fault_is_found_with_its_path() {
    let faults = parse(
        &[("a b", "c"), ("ok", "-")],
        &[
            ("", "Is", &["x"]),
            ("k", "In", &[]),
            ("k", "Exists", &["v"]),
            ("k", "NotIn", &["v", "v/w"]),
            ("example.com/k", "DoesNotExist", &[]),
            ("Example.com/k", "DoesNotExist", &[]),
        ],
    )
    .unwrap_err();
    let starts = [
        "matchLabels[a b]: \"a b\" is not a label key",
        "matchLabels[ok]: \"-\" is not a label value",
        "matchExpressions[0].key: \"\" is not a label key",
        "matchExpressions[0].operator: \"Is\" is not a selector operator",
        "matchExpressions[1].values: must be specified",
        "matchExpressions[2].values: may not be specified",
        "matchExpressions[3].values[1]: \"v/w\" is not a label value",
        "matchExpressions[5].key: \"Example.com/k\" is not a label key",
    ];
    assert_eq!(faults.len(), starts.len(), "{faults:#?}");
    for (fault, start) in faults.iter().zip(starts) {
        assert!(fault.starts_with(start), "{fault}");
    }
}

/// The table of the Kubernetes documentation of set-based requirements.
#[test]
fn each_operator_means_what_kubernetes_says() {
    let labels = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let cases: [Case<'_>; 11] = [
        ("In", &["a", "b"], &[("k", "b")], true),
        ("In", &["a", "b"], &[("k", "c")], false),
        ("In", &["a", "b"], &[], false),
        ("In", &[""], &[("k", "")], true),
        ("NotIn", &["a"], &[("k", "b")], true),
        ("NotIn", &["a"], &[("k", "a")], false),
        ("NotIn", &["a"], &[("other", "a")], true),
        ("Exists", &[], &[("k", "")], true),
        ("Exists", &[], &[("K", "")], false),
        ("DoesNotExist", &[], &[], true),
        ("DoesNotExist", &[], &[("k", "")], false),
    ];
    for (operator, values, found, expected) in cases {
        let selector = parse(&[], &[("k", operator, values)]).unwrap().unwrap();
        assert_eq!(selector.matches(&labels(found)), expected, "{operator} {values:?} {found:?}");
    }
    let both = parse(&[("a", "1")], &[("b", "Exists", &[])]).unwrap().unwrap();
    assert!(both.matches(&labels(&[("a", "1"), ("b", "")])));
    assert!(!both.matches(&labels(&[("a", "1")])) && !both.matches(&labels(&[("b", "")])));
}

/// `Requirement.Matches` and `internalSelector.Matches` of `k8s.io/apimachinery/pkg/labels`, written without this module.
fn matches_as_kubernetes(
    match_labels: &BTreeMap<String, String>,
    expressions: &[Expression],
    labels: &BTreeMap<String, String>,
) -> bool {
    for (key, value) in match_labels {
        if !(labels.contains_key(key) && labels[key] == *value) {
            return false;
        }
    }
    for (key, operator, values) in expressions {
        let has = labels.contains_key(key);
        let has_value = |value: &String| values.iter().any(|one| one == value);
        let matched = match *operator {
            "In" => has && has_value(&labels[key]),
            "NotIn" => !has || !has_value(&labels[key]),
            "Exists" => has,
            "DoesNotExist" => !has,
            other => panic!("{other}"),
        };
        if !matched {
            return false;
        }
    }
    true
}

fn map() -> impl Strategy<Value = BTreeMap<String, String>> {
    proptest::collection::btree_map("[a-c]", "[x-z]?", 0..4)
}

fn expression() -> impl Strategy<Value = Expression> {
    let operators = prop_oneof![Just("In"), Just("NotIn"), Just("Exists"), Just("DoesNotExist")];
    ("[a-d]", operators, proptest::collection::vec("[x-z]?", 1..3)).prop_map(|(key, operator, values)| {
        let compares = matches!(operator, "In" | "NotIn");
        (key, operator, if compares { values } else { Vec::new() })
    })
}

proptest! {
    #[test]
    fn matches_what_kubernetes_matches(
        match_labels in map(),
        expressions in proptest::collection::vec(expression(), 0..3),
        labels in map(),
    ) {
        let fields = SelectorFields {
            match_labels: Some(&match_labels),
            match_expressions: expressions
                .iter()
                .map(|(key, operator, values)| ExpressionFields { key, operator, values })
                .collect(),
        };
        let selector = LabelSelector::parse(&fields).unwrap();
        prop_assert_eq!(
            selector.is_none_or(|selector| selector.matches(&labels)),
            matches_as_kubernetes(&match_labels, &expressions, &labels)
        );
    }

    #[test]
    fn never_panics_on_arbitrary_input(key in ".*", operator in ".*", values in proptest::collection::vec(".*", 0..3)) {
        let expression = ExpressionFields { key: &key, operator: &operator, values: &values };
        let fields = SelectorFields { match_labels: None, match_expressions: vec![expression] };
        drop(LabelSelector::parse(&fields));
    }
}

#[test]
fn a_requirement_that_is_not_met_reads_as_kubectl_takes_it() {
    for (expression, text) in [
        (("k", "In", &["b", "a"][..]), "k in (a,b)"),
        (("k", "Exists", &[]), "k"),
        (("x", "NotIn", &["1"]), "x notin (1)"),
        (("x", "DoesNotExist", &[]), "!x"),
    ] {
        let selector = parse(&[], &[expression]).unwrap().unwrap();
        let labels = [("x".to_owned(), "1".to_owned())].into();
        assert_eq!(selector.unmet(&labels).map(ToString::to_string).as_deref(), Some(text));
    }
    let selector = parse(&[("k", "v")], &[]).unwrap().unwrap();
    assert_eq!(selector.unmet(&BTreeMap::new()).map(ToString::to_string).as_deref(), Some("k=v"));
}
