//! Hooks and webhooks: at least once with the same id, own environment, bounded, and in nobody's way.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::eventually;
use crate::support::instance::{IN, Instance, PROJECT, Setup};
use crate::support::receiver::Receiver;

/// Writes an executable hook. A script that a child has open for writing while it is run fails with "text busy".
pub(crate) fn hook(portal: &Instance, event: &str, name: &str, script: &str) {
    let dir = portal.file("hooks").join(event);
    std::fs::create_dir_all(&dir).unwrap();
    let (draft, path) = (portal.file("draft"), dir.join(name));
    std::fs::write(&draft, script).unwrap();
    std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(draft, path).unwrap();
}

fn runs(portal: &Instance) -> Vec<Value> {
    portal.cli(&["hook", "list"]).as_array().unwrap().clone()
}

#[track_caller]
fn until_run(portal: &Instance, target: &str, state: &str) -> Value {
    let find =
        || runs(portal).into_iter().find(|run| run["target"] == target && run["state"] == state);
    eventually(&format!("{target} is {state}"), || find().is_some());
    find().unwrap()
}

fn send(portal: &Instance, name: &str) {
    std::fs::write(portal.file("a.pdf"), format!("%PDF {name}")).unwrap();
    portal.sftp(&format!("put a.pdf \"{IN}/{name}\"\n")).well();
}

/// Processes whose command line holds a text.
fn processes(text: &str) -> usize {
    let output = Command::new("pgrep").args(["-fc", "--", text]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().parse().unwrap()
}

#[test]
fn a_hook_is_given_the_event_and_nothing_else() {
    let portal = Setup::new().environment("SECRET_OF_THE_SERVER", "1").start("hook");
    let script = "#!/bin/sh\ncat > \"$PTPORTAL_HOOKS_DIR/event.json\"\n/usr/bin/env -0 > \"$PTPORTAL_HOOKS_DIR/env\"\n\
                  pwd; ls -A; cat \"$PTPORTAL_FILE\"; echo wrong >&2\n";
    hook(&portal, "upload.delivered", "10-look", script);
    // What editors and package managers leave is not run.
    for name in ["10-look~", ".10-look.swp", "20-look.dpkg-dist"] {
        hook(
            &portal,
            "upload.delivered",
            name,
            "#!/bin/sh\ntouch \"$PTPORTAL_HOOKS_DIR/left-over\"\n",
        );
    }
    let name = "$(touch x);'`touch y`-rf ä & <b>.pdf";
    send(&portal, name);
    let run = until_run(&portal, "upload.delivered/10-look", "done");
    let (id, upload) = (run["id"].as_str().unwrap(), portal.upload(name));
    let event: Value =
        serde_json::from_slice(&std::fs::read(portal.file("hooks/event.json")).unwrap()).unwrap();
    assert_eq!((&event["id"], &event["type"]), (&run["id"], &Value::from("upload.delivered")));
    assert_eq!(event["data"]["upload"]["sha256"], upload["sha256"]);
    assert_eq!(event["data"]["project"]["job_description"], "Plakate");
    let text = std::fs::read_to_string(portal.file("hooks/env")).unwrap();
    let variables: Vec<(&str, &str)> =
        text.split('\0').filter_map(|line| line.split_once('=')).collect();
    let value = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
    assert_eq!(value("PTPORTAL_PATH"), Some(format!("Eingehend/{name}").as_str()));
    assert_eq!(value("PTPORTAL_EVENT_ID"), Some(id));
    assert_eq!(value("PTPORTAL_VERDICT"), Some("clean"));
    assert_eq!(value("PTPORTAL_ATTEMPT"), Some("1"));
    assert_eq!(value("SECRET_OF_THE_SERVER"), None);
    let is_known = |name: &str| {
        name.starts_with("PTPORTAL_")
            || ["PATH", "LANG", "HOME", "TMPDIR", "PWD", "_", "SHLVL", "OLDPWD"].contains(&name)
    };
    assert!(variables.iter().all(|(name, _)| is_known(name)), "{variables:?}");
    let output = run["output"].as_str().unwrap();
    assert!(output.contains(&format!("%PDF {name}")) && output.contains("wrong"), "{output}");
    let folder = output.lines().next().unwrap();
    assert!(!Path::new(folder).exists(), "the working folder goes");
    for left in ["x", "y", "hooks/left-over", "hooks/x", "hooks/upload.delivered/x"] {
        assert!(!portal.file(left).exists(), "{left}");
    }
}

#[test]
fn a_hook_that_hangs_forks_floods_or_fails_is_in_nobodys_way() {
    let portal = Setup::new().set("hooks", "timeout", "\"4s\"").start("badhooks");
    let mark = format!("ptportal-test-{}", std::process::id());
    let hang =
        format!("#!/bin/sh\n(setsid sh -c 'sleep 300 # {mark}' &) \nsh -c 'sleep 300 # {mark}'\n");
    hook(&portal, "upload.delivered", "10-hang", &hang);
    hook(
        &portal,
        "upload.delivered",
        "20-flood",
        "#!/bin/sh\nyes flood | head -c 200000000\necho the end\n",
    );
    let fork = format!(
        "#!/bin/sh\nfor i in $(seq 50); do (sh -c 'sleep 300 # {mark}' &); done\necho forked\n"
    );
    hook(&portal, "upload.delivered", "30-fork", &fork);
    hook(&portal, "upload.delivered", "40-fail", "#!/bin/sh\necho broken >&2; exit 7\n");
    hook(&portal, "upload.delivered", "50-text", "no interpreter");
    hook(
        &portal,
        "upload.delivered",
        "60-good",
        "#!/bin/sh\necho \"$PTPORTAL_PATH\" >> \"$PTPORTAL_HOOKS_DIR/good\"\n",
    );
    let writable = portal.file("hooks/upload.delivered/70-open");
    std::fs::write(&writable, "#!/bin/sh\ntouch \"$PTPORTAL_HOOKS_DIR/open\"\n").unwrap();
    std::fs::set_permissions(&writable, std::fs::Permissions::from_mode(0o777)).unwrap();
    let started = Instant::now();
    for n in 0..5 {
        send(&portal, &format!("{n}.pdf"));
        portal.until_delivered(&format!("{n}.pdf"));
    }
    let good = portal.file("hooks/good");
    eventually("the good hook has seen all", || {
        std::fs::read_to_string(&good).is_ok_and(|text| text.lines().count() == 5)
    });
    // The other hooks still hang: none of the five waited for one of them to be killed.
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    let flood = until_run(&portal, "upload.delivered/20-flood", "done");
    let output = flood["output"].as_str().unwrap();
    assert!(output.len() < 70_000 && output.ends_with("the end\n"), "{}", output.len());
    until_run(&portal, "upload.delivered/30-fork", "done");
    let again = |target: &str, reason: &str| {
        let target = format!("upload.delivered/{target}");
        eventually(&format!("{target} is tried again"), || {
            runs(&portal).iter().any(|run| {
                let told = run["last_error"].as_str().is_some_and(|text| text.contains(reason));
                run["target"] == target.as_str() && run["state"] == "pending" && told
            })
        });
    };
    again("10-hang", "did not end within 4 s");
    again("40-fail", "status 7");
    again("50-text", "#!");
    again("70-open", "chmod go-w");
    assert!(!portal.file("hooks/open").exists());
    // Whatever they started is gone with them; what is tried again is killed again.
    std::fs::remove_file(portal.file("hooks/upload.delivered/10-hang")).unwrap();
    std::fs::remove_file(portal.file("hooks/upload.delivered/30-fork")).unwrap();
    eventually("nothing of them is left", || processes(&mark) == 0);
}

#[test]
fn a_failed_hook_runs_again_with_the_same_id_and_what_is_given_up_is_told() {
    let portal = Setup::new().without_scanner().start("retryhook");
    let script = "#!/bin/sh\ncat >> \"$PTPORTAL_HOOKS_DIR/seen\"; echo >> \"$PTPORTAL_HOOKS_DIR/seen\"\n\
                  [ \"$PTPORTAL_ATTEMPT\" = 2 ]\n";
    hook(&portal, "upload.released", "once-more", script);
    send(&portal, "a.pdf");
    let run = until_run(&portal, "upload.released/once-more", "done");
    assert_eq!(run["attempts"], 2);
    let seen = std::fs::read_to_string(portal.file("hooks/seen")).unwrap();
    let seen: Vec<&str> = seen.lines().collect();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0], seen[1], "the same event, byte for byte");
    // A hook that is removed while it waits is given up, which is an event with what to do.
    hook(&portal, "upload.released", "once-more", "#!/bin/sh\nexit 1\n");
    send(&portal, "b.pdf");
    eventually("it has failed once", || {
        runs(&portal)[0]["attempts"] == 1 && runs(&portal)[0]["last_error"] != Value::Null
    });
    std::fs::rename(portal.file("hooks/upload.released/once-more"), portal.file("aside")).unwrap();
    let run = until_run(&portal, "upload.released/once-more", "failed");
    let event = portal.events("hook.failed").pop().unwrap();
    assert_eq!(event["detail"]["run"], run["id"]);
    assert!(event["detail"]["remedy"].as_str().unwrap().contains("hook retry"), "{event}");
    hook(&portal, "upload.released", "once-more", "#!/bin/sh\necho mended\n");
    portal.cli(&["hook", "retry", run["id"].as_str().unwrap()]);
    eventually("the retry succeeds", || {
        let shown = portal.cli(&["hook", "show", run["id"].as_str().unwrap()]);
        shown["state"] == "done" && shown["output"] == "mended\n"
    });
    assert!(!portal.try_cli(&["hook", "retry", "nothing"]).status.success());
}

#[test]
fn hooks_that_cannot_be_read_hold_nothing_else_up_and_run_once_they_can() {
    let portal = Setup::new().without_scanner().start("unreadhook");
    let dir = portal.file("hooks/upload.released");
    // Even root cannot read this one.
    std::fs::create_dir_all(portal.file("hooks")).unwrap();
    std::os::unix::fs::symlink("upload.released", &dir).unwrap();
    let note =
        "#!/bin/sh\necho \"$PTPORTAL_EVENT $PTPORTAL_PATH\" >> \"$PTPORTAL_HOOKS_DIR/seen\"\n";
    hook(&portal, "upload.delivered", "note", note);
    send(&portal, "a.pdf");
    until_run(&portal, "upload.delivered/note", "done");
    let waiting = || runs(&portal).into_iter().find(|run| run["target"] == "upload.released/");
    eventually("the reason is told", || {
        let reason = waiting().and_then(|run| run["last_error"].as_str().map(str::to_owned));
        reason.is_some_and(|reason| reason.contains("symbolic links"))
    });
    std::fs::remove_file(&dir).unwrap();
    hook(&portal, "upload.released", "note", note);
    until_run(&portal, "upload.released/note", "done");
    let read = waiting().unwrap();
    assert_eq!((&read["state"], &read["output"]), (&Value::from("done"), &Value::from("note")));
    let seen = std::fs::read_to_string(portal.file("hooks/seen")).unwrap();
    let path = "Eingehend/a.pdf";
    assert_eq!(seen, format!("upload.delivered {path}\nupload.released {path}\n"));
}

#[test]
fn events_without_a_file_have_their_hooks_too_and_a_stop_ends_what_they_started() {
    let mut portal = Setup::new().without_scanner().start("stophook");
    let mark = format!("ptportal-stop-{}", std::process::id());
    hook(
        &portal,
        "ticket.created",
        "note",
        "#!/bin/sh\necho \"$PTPORTAL_PROJECT_NO/$PTPORTAL_TICKET_NO\" > \"$PTPORTAL_HOOKS_DIR/ticket\"\n",
    );
    let hang =
        format!("#!/bin/sh\n(setsid sh -c 'sleep 300 # {mark}' &)\nsh -c 'sleep 300 # {mark}'\n");
    hook(&portal, "ticket.created", "hang", &hang);
    portal.cli(&["ticket", "add", PROJECT, "T-1"]);
    let noted = portal.file("hooks/ticket");
    eventually("it knows the ticket", || {
        std::fs::read_to_string(&noted).is_ok_and(|text| text == format!("{PROJECT}/T-1\n"))
    });
    eventually("the other hangs", || processes(&mark) > 0);
    portal.stop();
    assert_eq!(processes(&mark), 0, "nothing of it is left");
    portal.serve();
    eventually("it runs again", || processes(&mark) > 0);
    let run = runs(&portal).into_iter().find(|run| run["target"] == "ticket.created/hang").unwrap();
    assert_eq!(run["attempts"], 2);
    std::fs::remove_file(portal.file("hooks/ticket.created/hang")).unwrap();
    Command::new("pkill").args(["-KILL", "-f", &mark]).status().unwrap();
}

#[test]
fn hook_test_shows_what_a_hook_says() {
    let portal = Setup::new().without_scanner().start("hooktest");
    let none = portal.try_cli(&["hook", "test", "upload.delivered"]);
    assert!(
        !none.status.success() && String::from_utf8_lossy(&none.stderr).contains("no executable")
    );
    assert!(!portal.try_cli(&["hook", "test", "upload.sent"]).status.success());
    hook(
        &portal,
        "upload.delivered",
        "a",
        "#!/bin/sh\nhead -c 4 \"$PTPORTAL_FILE\"; sha256sum \"$PTPORTAL_FILE\" | grep -q \"$PTPORTAL_SHA256\"\n",
    );
    let tested = portal.cli(&["hook", "test", "upload.delivered"]);
    assert_eq!(tested[0]["ok"], true, "{tested:#}");
    assert_eq!(tested[0]["output"], "%PDF");
    hook(&portal, "upload.delivered", "b", "#!/bin/sh\necho no; exit 3\n");
    let output = portal.try_cli(&["hook", "test", "upload.delivered"]);
    assert_eq!(output.status.code(), Some(1));
    let tested: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&tested[1]["ok"], &tested[1]["reason"]),
        (&false.into(), &"ended with status 3".into())
    );
    assert!(runs(&portal).is_empty(), "a test is no run");
}

#[test]
fn the_examples_run() {
    let portal = Setup::new().without_scanner().start("examples");
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("hooks/examples");
    for event in ["upload.delivered", "upload.infected"] {
        let to = portal.file("hooks").join(event);
        std::fs::create_dir_all(&to).unwrap();
        for entry in std::fs::read_dir(from.join(event)).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
    let second = portal.file("zweite");
    std::fs::create_dir(&second).unwrap();
    std::fs::write(second.join(".ptportal-share"), "").unwrap();
    std::fs::write(portal.file("hooks/second-share.folder"), second.to_str().unwrap()).unwrap();
    let receiver = Receiver::start("ok");
    std::fs::write(portal.file("hooks/chat.url"), receiver.url("/chat")).unwrap();
    let tested = portal.cli(&["hook", "test", "upload.delivered"]);
    for hook in tested.as_array().unwrap() {
        assert_eq!(hook["ok"], true, "{hook:#}");
    }
    let look = tested[0]["output"].as_str().unwrap();
    assert!(look.contains("210") && look.contains("297"), "the trim size of the sample: {look}");
    assert!(second.join("1001/2026-0815/beispiel.pdf").exists(), "{tested:#}");
    assert_eq!(portal.cli(&["hook", "test", "upload.infected"])[0]["ok"], true);
    assert!(receiver.calls()[0]["body"].as_str().unwrap().contains("text"));
}

#[test]
fn hooks_follow_from_every_event_through_kills() {
    let mut portal = Setup::new()
        .without_scanner()
        .set("hotfolder", "delivery_delay", "\"20ms\"")
        .start("hookkill");
    let script = "#!/bin/sh\necho \"$PTPORTAL_EVENT_ID $PTPORTAL_UPLOAD_ID\" >> \"$PTPORTAL_HOOKS_DIR/begun\"\nsleep 0.2\n\
                  echo \"$PTPORTAL_EVENT_ID $PTPORTAL_UPLOAD_ID\" >> \"$PTPORTAL_HOOKS_DIR/done\"\n";
    hook(&portal, "upload.delivered", "note", script);
    for round in 0..6 {
        for n in 0..4 {
            send(&portal, &format!("{round}-{n}.pdf"));
        }
        std::thread::sleep(Duration::from_millis(100 + 150 * round));
        portal.kill();
        portal.serve();
    }
    eventually("every run has ended", || {
        let all = runs(&portal);
        all.len() == 24 && all.iter().all(|run| run["state"] == "done")
    });
    let read = |name: &str| std::fs::read_to_string(portal.file("hooks").join(name)).unwrap();
    let done = read("done");
    let pairs: std::collections::HashSet<(&str, &str)> =
        done.lines().filter_map(|line| line.split_once(' ')).collect();
    assert_eq!(pairs.len(), 24, "one id for each upload, the same at every repeat: {done}");
    let uploads: std::collections::HashSet<&str> =
        pairs.iter().map(|(_, upload)| *upload).collect();
    assert_eq!(uploads.len(), 24);
    // Killed in the middle, one or another has begun twice, with its own id.
    let begun = read("begun");
    assert!(begun.lines().all(|line| done.contains(line)), "{begun}");
}

fn hooked(receiver: &Receiver, events: &str) -> Setup {
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    Setup::new().without_scanner().webhook(&receiver.url("/in"), events, secret)
}

/// The signature as the standard's own words say, with OpenSSL.
fn signature(call: &Value) -> String {
    let header = |name: &str| call["headers"][name].as_str().unwrap().to_owned();
    let signed = format!(
        "{}.{}.{}",
        header("webhook-id"),
        header("webhook-timestamp"),
        call["body"].as_str().unwrap()
    );
    let script = "printf %s \"$1\" | openssl dgst -sha256 -mac HMAC -macopt hexkey:$(printf %s MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw | base64 -d | od -An -vtx1 | tr -d ' \\n') -binary | base64";
    let output = Command::new("sh").args(["-c", script, "sh", &signed]).output().unwrap();
    format!("v1,{}", String::from_utf8_lossy(&output.stdout).trim())
}

#[test]
fn a_webhook_is_signed_and_comes_again_until_it_is_taken() {
    let receiver = Receiver::start("500");
    let portal = hooked(&receiver, "[\"upload.delivered\"]").start("webhook");
    send(&portal, "ä.pdf");
    receiver.until_calls(1);
    receiver.set_mode("reset");
    receiver.until_calls(2);
    receiver.set_mode("ok");
    let run = until_run(&portal, &receiver.url("/in"), "done");
    let calls = receiver.calls();
    assert_eq!(calls.len(), 3);
    for call in &calls {
        assert_eq!(call["body"], calls[0]["body"], "the same body");
        assert_eq!(call["headers"]["webhook-id"], run["id"], "the same id");
        assert_eq!(call["headers"]["webhook-signature"], signature(call).as_str());
    }
    let pause = calls[1]["time"].as_f64().unwrap() - calls[0]["time"].as_f64().unwrap();
    assert!(pause < 30.0, "{pause}");
    let event: Value = serde_json::from_str(calls[0]["body"].as_str().unwrap()).unwrap();
    assert_eq!(
        (&event["type"], &event["data"]["path"]),
        (&"upload.delivered".into(), &"Eingehend/ä.pdf".into())
    );
    assert_eq!(
        event["data"]["file"],
        Value::Null,
        "paths of this machine are nobody else's business"
    );
    let shown = portal.try_cli(&["config", "show"]);
    let text = format!("{}{}", String::from_utf8_lossy(&shown.stdout), portal.log());
    assert!(!text.contains("MfKQ9r8GKYqr"), "the secret is shown nowhere");
}

#[test]
fn a_webhook_follows_no_redirect_and_410_ends_it() {
    let receiver = Receiver::start("302");
    let portal = hooked(&receiver, "[\"upload.released\", \"upload.deleted\"]").start("redirect");
    send(&portal, "a.pdf");
    receiver.until_calls(1);
    eventually("the refusal is noted", || {
        runs(&portal)[0]["last_error"]
            .as_str()
            .is_some_and(|text| text.contains("redirects are not followed"))
    });
    receiver.set_mode("410");
    let failed = until_run(&portal, &receiver.url("/in"), "failed");
    assert!(failed["last_error"].as_str().unwrap().contains("410"));
    assert_eq!(portal.events("hook.failed").len(), 1);
    assert!(receiver.calls().iter().all(|call| call["path"] == "/in"), "nobody went elsewhere");
    receiver.set_mode("ok");
    portal.cli(&["hook", "retry", "--all"]);
    until_run(&portal, &receiver.url("/in"), "done");
    // Only what was asked for is told.
    portal.sftp(&format!("rm {IN}/a.pdf\n")).well();
    let last = receiver.until_calls(4).pop().unwrap();
    assert!(last["body"].as_str().unwrap().contains("upload.deleted"));
}

#[test]
fn a_webhook_that_hangs_delays_no_hook_and_no_customer() {
    let receiver = Receiver::start("hang");
    let portal = hooked(&receiver, "[\"upload.delivered\"]").start("hangweb");
    hook(
        &portal,
        "upload.delivered",
        "note",
        "#!/bin/sh\necho x >> \"$PTPORTAL_HOOKS_DIR/seen\"\n",
    );
    for n in 0..6 {
        send(&portal, &format!("{n}.pdf"));
        portal.until_delivered(&format!("{n}.pdf"));
    }
    let started = Instant::now();
    eventually("the hooks have run", || {
        std::fs::read_to_string(portal.file("hooks/seen"))
            .is_ok_and(|text| text.lines().count() == 6)
    });
    assert!(started.elapsed() < Duration::from_secs(10));
    let told = |text: &'static str| {
        let runs = runs(&portal);
        runs.iter().any(|run| run["last_error"].as_str().unwrap_or_default().contains(text))
    };
    eventually("a call has its time", || told("no answer in time"));
    // What an endless answer says is cut off too, in time and in memory.
    receiver.set_mode("endless");
    let before = portal.memory("VmHWM");
    eventually("its beginning is kept", || told("answers 500"));
    let grown = portal.memory("VmHWM") - before;
    assert!(grown < 16 * 1024, "{grown} KiB more");
}
