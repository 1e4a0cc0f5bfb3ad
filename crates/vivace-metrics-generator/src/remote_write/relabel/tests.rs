//! What rules make of labels.

use proptest::prelude::*;
use vivace_config::Config;

use super::*;

fn rules(yaml: &str) -> Rules {
    let text = format!("metrics_generator: {{storage: {{remote_write: [{{url: 'http://a', write_relabel_configs: [{yaml}]}}]}}}}");
    let (config, _) = Config::parse(&text, "t").expect("it is right");
    Rules::new(&config.metrics_generator.storage.remote_write[0].write_relabel_configs).expect("they can be used")
}

fn labels(text: &str) -> Vec<Label> {
    let pair = |pair: &str| pair.split_once('=').map(|(name, value)| Label { name: name.to_owned(), value: value.to_owned() });
    text.split(' ').filter_map(pair).collect()
}

/// What becomes of labels, written `a=1 b=2`; `-` if the series is left out.
fn relabelled(yaml: &str, before: &str) -> String {
    let Some(after) = rules(yaml).relabel(labels(before)) else { return "-".to_owned() };
    after.iter().map(|label| format!("{}={}", label.name, label.value)).collect::<Vec<_>>().join(" ")
}

#[test]
fn each_action_does_what_prometheus_says() {
    for (rule, before, after) in [
        ("{source_labels: [a, b], target_label: c}", "a=1 b=2", "a=1 b=2 c=1;2"),
        (
            "{source_labels: [a, b], separator: '', regex: '(.)(.)', replacement: '$2-${1}x$3', target_label: c}",
            "a=1 b=2",
            "a=1 b=2 c=2-1x",
        ),
        ("{source_labels: [a], regex: 'x', target_label: a, replacement: y}", "a=xx", "a=xx"),
        ("{target_label: env, replacement: prod}", "a=1", "a=1 env=prod"),
        ("{source_labels: [a], target_label: b, replacement: ''}", "a=1 b=2", "a=1"),
        ("{source_labels: [a], target_label: '${1}_x'}", "a=q", "a=q q_x=q"),
        ("{source_labels: [a], target_label: '${1}'}", "a=9-", "a=9-"),
        ("{source_labels: [a], regex: '1|2', action: keep}", "a=1", "a=1"),
        ("{source_labels: [a], regex: '1|2', action: keep}", "a=12", "-"),
        ("{source_labels: [__name__], regex: 'traces_.*', action: drop}", "__name__=traces_x", "-"),
        ("{source_labels: [none], regex: '', action: drop}", "a=1", "-"),
        ("{source_labels: [a], target_label: b, action: keepequal}", "a=1 b=1", "a=1 b=1"),
        ("{source_labels: [a], target_label: b, action: keepequal}", "a=1 b=2", "-"),
        ("{source_labels: [a], target_label: b, action: dropequal}", "a=1 b=1", "-"),
        ("{source_labels: [a], target_label: b, action: Lowercase}", "a=AbÉ", "a=AbÉ b=abé"),
        ("{source_labels: [a], target_label: a, action: uppercase}", "a=abé", "a=ABÉ"),
        ("{regex: 'k8s_(.*)', action: labelmap}", "k8s_pod=p k8s_node=n", "k8s_node=n k8s_pod=p node=n pod=p"),
        ("{regex: 'k8s_.*', action: labeldrop}", "k8s_pod=p a=1", "a=1"),
        ("{regex: 'a|__name__', action: labelkeep}", "k8s_pod=p a=1", "a=1"),
        ("{regex: '.*', action: labeldrop}", "a=1", "-"),
        ("{regex: 'a', action: labeldrop}, {target_label: b, replacement: '2'}", "a=1", "b=2"),
        ("{source_labels: [a], regex: '1', action: drop}, {target_label: b, replacement: '2'}", "a=1", "-"),
    ] {
        assert_eq!(relabelled(rule, before), after, "{rule}");
    }
}

#[test]
fn a_pattern_sees_line_breaks_too() {
    let rules = rules("{source_labels: [a], regex: '.*', action: drop}");
    assert_eq!(rules.relabel(vec![Label { name: "a".to_owned(), value: "one\ntwo".to_owned() }]), None);
}

#[test]
fn parts_are_those_that_others_make() {
    // md5("") = d41d8cd98f00b204e9800998ecf8427e
    assert_eq!(hash(""), 0xe980_0998_ecf8_427e);
    // md5("abc") = 900150983cd24fb0d6963f7d28e17f72
    assert_eq!(hash("abc"), 0xd696_3f7d_28e1_7f72);
    let part = (0xd696_3f7d_28e1_7f72_u64 % 1000).to_string();
    assert_eq!(
        relabelled("{source_labels: [a], target_label: part, modulus: 1000, action: hashmod}", "a=abc"),
        format!("a=abc part={part}")
    );
}

#[test]
fn what_is_not_a_rule_is_refused_by_key() {
    let problems = |rule: &str| {
        let text = format!("metrics_generator: {{storage: {{remote_write: [{{url: 'http://a', write_relabel_configs: [{rule}]}}]}}}}");
        Config::parse(&text, "t").expect_err("it is wrong").to_string()
    };
    for (rule, said) in [
        ("{regex: '(', target_label: a}", "write_relabel_configs[0].regex: expected a pattern"),
        ("{regex: 'a)|(b', target_label: a}", "write_relabel_configs[0].regex: expected a pattern"),
        ("{source_labels: [a]}", "write_relabel_configs[0].target_label: is not set; the action replace needs it"),
        ("{target_label: a, action: hashmod}", "write_relabel_configs[0].modulus: is not set"),
        ("{action: remove}", "write_relabel_configs[0].action"),
    ] {
        let found = problems(rule);
        assert!(found.contains(said), "{found}");
    }
}

fn any_rule() -> impl Strategy<Value = RelabelConfig> {
    use RelabelAction as A;
    let actions = [
        A::Replace,
        A::Keep,
        A::Drop,
        A::KeepEqual,
        A::DropEqual,
        A::HashMod,
        A::LabelMap,
        A::LabelDrop,
        A::LabelKeep,
        A::Lowercase,
        A::Uppercase,
    ];
    let name = || prop::sample::select(vec!["a", "b", "c", "__name__", "$1", "${1}x", "9", ""]);
    let pattern = prop::sample::select(vec!["(.*)", "a", "(a|b)", "[^a]*", "()", "(.)(.*)"]);
    let replacement = prop::sample::select(vec!["$1", "$2", "$0$0", "x", "", "$name", "$$"]);
    (prop::sample::select(actions.to_vec()), prop::collection::vec(name(), 0..3), name(), pattern, replacement, 0u64..4).prop_map(
        |(action, sources, target, regex, replacement, modulus)| RelabelConfig {
            source_labels: sources.into_iter().map(str::to_owned).collect(),
            target_label: target.to_owned(),
            regex: regex.to_owned(),
            replacement: replacement.to_owned(),
            modulus,
            action,
            ..RelabelConfig::default()
        },
    )
}

proptest! {
    /// Whatever the rules, what is left can be sent: labels sorted, each name once, none empty.
    #[test]
    fn what_is_left_can_be_sent(
        configs in prop::collection::vec(any_rule(), 0..6),
        values in prop::collection::btree_map(prop::sample::select(vec!["a", "b", "c", "__name__", "le"]), "[abA\\PC]{1,4}", 1..5),
    ) {
        let before: Vec<Label> = values.iter().map(|(name, value)| Label { name: (*name).to_owned(), value: value.clone() }).collect();
        let rules = Rules::new(&configs).expect("they can be used");
        let series = TimeSeries { labels: before.clone(), ..TimeSeries::default() };
        for series in rules.apply(&[series]) {
            prop_assert!(series.labels.is_sorted_by(|a, b| a.name < b.name), "{:?}", series.labels);
            prop_assert!(series.labels.iter().all(|label| !label.name.is_empty() && !label.value.is_empty()));
            if configs.is_empty() {
                prop_assert_eq!(&series.labels, &before);
            }
        }
    }

    /// A rule that keeps and one that drops by the same pattern part all series among them.
    #[test]
    fn keep_and_drop_are_opposites(pattern in prop::sample::select(vec!["a.*", "(a|b)", "", "[^x]"]), value in "[abx]{0,3}") {
        let before = format!("name=x a={value}");
        let has = |action: &str| relabelled(&format!("{{source_labels: [a], regex: '{pattern}', action: {action}}}"), &before) != "-";
        prop_assert_ne!(has("keep"), has("drop"));
    }

    #[test]
    fn parts_are_below_the_modulus(value in "\\PC{0,20}", modulus in 1u64..100) {
        prop_assert!(hash(&value) % modulus < modulus);
    }
}
