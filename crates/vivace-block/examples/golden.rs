use std::collections::BTreeMap;
use vivace_block::*;
use vivace_traceql::*;
fn main() {
    let mut bodies = Vec::new();
    for n in 0.. {
        match std::fs::read(format!("/tmp/golden/req-{n:03}.bin")) {
            Ok(b) => bodies.push(b),
            Err(_) => break,
        }
    }
    let mut traces: BTreeMap<vivace_core::TraceId, Vec<SpanRef<'_>>> = BTreeMap::new();
    for body in &bodies {
        vivace_core::otlp::walk_spans(body, |at, head| {
            traces.entry(head.trace()).or_default().push(SpanRef { resource: at.resource, scope: at.scope, span: head.bytes });
        })
        .unwrap();
    }
    let traces: Vec<_> = traces.into_iter().collect();
    eprintln!("{} traces", traces.len());
    let mut out = String::new();
    for line in std::fs::read_to_string("/tmp/golden/cases.jsonl").unwrap().lines() {
        let case: serde_json::Value = serde_json::from_str(line).unwrap();
        let p = |k: &str| case["params"][k].as_str();
        let secs = |k: &str| p(k).and_then(|v| v.parse::<u64>().ok()).unwrap_or(0) * 1_000_000_000;
        let limit = p("limit").and_then(|v| v.parse().ok()).unwrap_or(20usize);
        let spss = p("spss").and_then(|v| v.parse().ok()).unwrap_or(3usize);
        let ms = |k: &str| {
            p(k).and_then(|v| {
                let n: String = v.chars().take_while(|c| c.is_ascii_digit()).collect();
                let n: u64 = n.parse().ok()?;
                Some(
                    n * match &v[n.to_string().len()..] {
                        "ms" => 1,
                        "s" => 1000,
                        "m" => 60000,
                        _ => panic!("{v}"),
                    },
                )
            })
        };
        let plan = (|| -> Result<SearchPlan, QueryError> {
            if let Some(q) = p("q").filter(|q| !q.is_empty()) {
                return parse(q)?.search_plan(secs("start"), secs("end"));
            }
            if p("q").is_some() && p("tags").is_none() {
                return parse("{}")?.search_plan(secs("start"), secs("end"));
            }
            LegacySearch {
                tags: parse_tags(p("tags").unwrap_or(""))?,
                min_duration_ms: ms("minDuration"),
                max_duration_ms: ms("maxDuration"),
            }
            .search_plan(secs("start"), secs("end"))
        })();
        let (status, body) = match plan {
            Err(e) => (400, format!("invalid TraceQL query: {e}")),
            Ok(plan) => {
                let batch = live::batch(plan.fetch(), &traces);
                let mut c = SearchCombiner::new(limit, plan.most_recent());
                let t = std::time::Instant::now();
                for t in plan.evaluate(&batch, spss) {
                    c.add(t);
                }
                if t.elapsed().as_millis() > 20 {
                    eprintln!("{} {:?}", case["id"], t.elapsed());
                }
                let found = c.finish();
                (200, serde_json::json!({"traces": found, "metrics": {}}).to_string())
            }
        };
        out.push_str(&serde_json::json!({"id": case["id"], "status": status, "body": body}).to_string());
        out.push('\n');
    }
    std::fs::write("/tmp/golden/answers.jsonl", out).unwrap();
}
