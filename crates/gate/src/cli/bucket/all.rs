//! `gate bucket create`, `list`, `rename`, `delete`: which buckets there are.

use serde_json::json;

use super::{COMMAND, JSON_VERSION, Which};
use crate::ask;
use crate::daemon::body::bucket::{AllBuckets, Bucket, Named, OneBucket};
use crate::daemon::body::{Deleted, short};
use crate::failure::Failure;
use crate::output::{self, Table};
use crate::reach::BrokerFlags;
use crate::rest::{BUCKETS, Rest};

/// Make a bucket
#[derive(Debug, clap::Args)]
pub struct Create {
    /// What it is called on this device
    name: String,
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    broker: BrokerFlags,
}

/// Show the buckets of this device
#[derive(Debug, clap::Args)]
pub struct List {
    /// Write JSON
    #[arg(long)]
    json: bool,
    /// Write a line for each, with tabs between, and no heading
    #[arg(long, conflicts_with = "json")]
    plain: bool,
    #[command(flatten)]
    broker: BrokerFlags,
}

/// Call a bucket something else on this device
#[derive(Debug, clap::Args)]
pub struct Rename {
    #[command(flatten)]
    which: Which,
    /// What it is called from now on
    name: String,
}

/// Delete a bucket from this device, with all of its versions
#[derive(Debug, clap::Args)]
pub struct Delete {
    #[command(flatten)]
    which: Which,
    /// Do not ask
    #[arg(long, short)]
    force: bool,
}

impl Create {
    pub fn run(self) -> Result<(), Failure> {
        let rest = Rest::find_or_start(&self.broker, COMMAND)?;
        let made: OneBucket = rest.tell("POST", BUCKETS, &Named { name: self.name })?;
        if made.device_made {
            output::say_line(
                "this device has keys of its own now, without a passphrase: keep a copy of the \
                 file `identity` in the daemon's state directory",
            );
        }
        let bucket = made.bucket;
        if self.json {
            return output::print_json(&json!({"version": JSON_VERSION, "bucket": bucket}));
        }
        output::print(&format!("{} is made, with the id {}\n", bucket.name, bucket.bucket_id))
    }
}

impl List {
    pub fn run(self) -> Result<(), Failure> {
        let rest = Rest::find_or_start(&self.broker, COMMAND)?;
        let AllBuckets { buckets } = rest.ask("GET", BUCKETS)?;
        if self.json {
            return output::print_json(&json!({"version": JSON_VERSION, "buckets": buckets}));
        }
        if self.plain {
            let line = |bucket: &Bucket| {
                let Bucket { bucket_id, name, created_at, stored_bytes } = bucket;
                format!("{bucket_id}\t{name}\t{created_at}\t{stored_bytes}\n")
            };
            return output::print(&buckets.iter().map(line).collect::<String>());
        }
        let mut table = Table::new(["ID", "NAME", "MADE", "STORED"]);
        for bucket in &buckets {
            let Bucket { bucket_id, name, created_at, stored_bytes } = bucket;
            let stored = output::bytes(*stored_bytes);
            table.row([short(*bucket_id), name.clone(), created_at.clone(), stored]);
        }
        if table.is_empty() {
            return output::print("no buckets; `gate bucket create NAME` makes one\n");
        }
        output::print(&table.text())
    }
}

impl Rename {
    pub fn run(self) -> Result<(), Failure> {
        let (rest, target) = self.which.reach()?;
        let OneBucket { bucket, .. } = rest.tell("PATCH", &target, &Named { name: self.name })?;
        output::print(&format!("{} is called {}\n", short(bucket.bucket_id), bucket.name))
    }
}

impl Delete {
    pub fn run(self) -> Result<(), Failure> {
        let (rest, target) = self.which.reach()?;
        let OneBucket { bucket, .. } = rest.ask("GET", &target)?;
        let name = &bucket.name;
        if !self.force {
            let question = format!(
                "Delete {name} ({}, made at {}) from this device, with all of its versions? That cannot be undone.",
                bucket.bucket_id, bucket.created_at
            );
            ask::confirm(name, &question, &format!("gate bucket delete -f {name}"))?;
        }
        let Deleted { .. } = rest.ask("DELETE", &super::target(&bucket.bucket_id.to_string()))?;
        output::print(&format!("{name} is deleted\n"))
    }
}
