//! `backup`, `restore`, `fsck`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::Context;
use crate::app::backup;
use crate::app::fsck::{self, Scope};
use crate::store::Store;
use crate::vault;

pub(super) async fn backup(context: &Context, file: &Path) -> anyhow::Result<()> {
    let app = context.open().await?;
    let origin = (&context.loaded.config, context.loaded.file.as_deref());
    let manifest = backup::backup(&app.store, origin, file, app.now()).await?;
    let parts: Vec<&str> = manifest.parts.iter().map(|part| part.name.as_str()).collect();
    context.printer.one(&json!({
        "file": file.display().to_string(), "rows": manifest.rows, "parts": parts, "created": manifest.created,
    }));
    Ok(())
}

pub(super) async fn restore(context: &Context, file: &Path) -> anyhow::Result<()> {
    let config = &context.loaded.config;
    let dir = config.data_dir.display();
    vault::refuse_foreign_root(&config.data_dir)?;
    vault::make_private_dir(&config.data_dir).with_context(|| format!("data_dir {dir}"))?;
    // A server that runs must not have its tables changed under its feet.
    let _lock = vault::lock(&config.data_dir, true)
        .with_context(|| format!("a server runs on {dir}; stop it first"))?;
    let store =
        Store::open(&config.database.url, &config.sqlite_file()).await.context("database")?;
    let restored = backup::restore(&store, config, file).await?;
    store.close().await;
    context.printer.one(&json!({
        "rows": restored.rows, "files": restored.files, "kept": restored.kept, "by_hand": restored.by_hand,
        "next": "take the parts of by_hand out with tar, copy the vault back into data_dir, then `ptportal fsck` and `ptportal check`",
    }));
    Ok(())
}

pub(super) async fn fsck(context: &Context, deep: bool, repair: bool) -> anyhow::Result<ExitCode> {
    let app = context.open().await?;
    let report = fsck::run(&app, Scope { is_deep: deep, repairs: repair }).await?;
    let problems: Vec<Value> = report
        .problems
        .iter()
        .map(|p| {
            json!({
                "problem": p.kind.as_str(), "upload_id": p.upload_id, "path": p.path, "detail": p.detail,
                "repaired": if p.repaired.is_empty() { Value::Null } else { Value::from(p.repaired.as_str()) },
            })
        })
        .collect();
    if context.printer.is_json() {
        context.printer.one(&json!({
            "contents": report.contents, "uploads": report.uploads, "problems": problems, "open": report.open(),
        }));
    } else {
        context.printer.list(&problems, &["problem", "upload_id", "path", "detail", "repaired"]);
        super::print::out(&format!(
            "{} contents, {} uploads looked at; {} problems, {} of them open",
            report.contents,
            report.uploads,
            report.problems.len(),
            report.open()
        ));
    }
    Ok(if report.open() > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
