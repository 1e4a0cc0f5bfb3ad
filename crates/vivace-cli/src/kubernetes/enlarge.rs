//! The size in a StatefulSet's claim template cannot change, so the claims are enlarged one by one and the StatefulSet is deleted
//! without its pods. The upgrade that follows makes it anew, with the new size. May be run again if it was cut short.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::api::{Api, Place};
use crate::Ending;

/// Between two looks whether a StatefulSet is gone.
const PAUSE: Duration = Duration::from_millis(250);
/// Longest wait until one is gone.
const GONE: Duration = Duration::from_secs(60);

/// Enlarge the volume claims of StatefulSets, and delete these without their pods.
#[derive(Debug, Args)]
pub(crate) struct Command {
    #[command(flatten)]
    place: Place,
    #[arg(long)]
    namespace: String,
    /// A StatefulSet and the number of its claims, such as tempo-ingester=3. May be given several times.
    #[arg(long, required = true, value_parser = stateful_set)]
    stateful_set: Vec<(String, u32)>,
    /// Name of the claim template.
    #[arg(long)]
    claim: String,
    /// The new size, such as 50Gi.
    #[arg(long)]
    size: String,
}

fn stateful_set(text: &str) -> Result<(String, u32), String> {
    let parts = text.split_once('=').and_then(|(name, count)| Some((name.to_owned(), count.parse().ok()?)));
    parts.filter(|(name, _)| !name.is_empty()).ok_or_else(|| "expected a name and a number, such as tempo-ingester=3".to_owned())
}

pub(crate) async fn run(command: Command, out: &mut dyn Write) -> anyhow::Result<Ending> {
    let api = command.place.open()?;
    let Command { namespace, claim, size, .. } = &command;
    for (name, count) in &command.stateful_set {
        for number in 0..*count {
            let claim = format!("{claim}-{name}-{number}");
            let path = format!("/api/v1/namespaces/{namespace}/persistentvolumeclaims/{claim}");
            let patch = json!({"spec": {"resources": {"requests": {"storage": size}}}});
            let is_there = api.patch(&path, &patch).await.with_context(|| {
                format!(
                    "cannot enlarge the claim {claim} to {size}; volumes only grow, and where the StorageClass has allowVolumeExpansion"
                )
            })?;
            let what = if is_there { format!("asks for {size} now") } else { "is not there; the StatefulSet will make it".to_owned() };
            say(out, &format!("claim {claim} {what}"))?;
        }
        delete(&api, namespace, name).await?;
        say(out, &format!("StatefulSet {name} is deleted, its pods run on"))?;
    }
    Ok(Ending::Good)
}

/// Deletes a StatefulSet without its pods, and waits until it is gone: a Helm that finds it leaving fails.
async fn delete(api: &Api, namespace: &str, name: &str) -> anyhow::Result<()> {
    let path = format!("/apis/apps/v1/namespaces/{namespace}/statefulsets/{name}");
    api.delete_alone(&path).await.with_context(|| format!("cannot delete the StatefulSet {name}"))?;
    let deadline = Instant::now() + GONE;
    while api.exists(&path).await? {
        if Instant::now() > deadline {
            bail!("the StatefulSet {name} is still there, {} s after it was deleted; what do its finalizers wait for?", GONE.as_secs());
        }
        sleep(PAUSE).await;
    }
    Ok(())
}

fn say(out: &mut dyn Write, line: &str) -> anyhow::Result<()> {
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
