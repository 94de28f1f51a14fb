//! `gate config show`, and the files it tells of; `gate man`.

use std::fs;

use gate_tests::World;
use serde_json::{Value, json};

#[test]
fn config_show_tells_each_value_and_where_it_comes_from() {
    let world = World::bare();
    let dir = world.home().join("home/.config/gate");
    fs::create_dir_all(&dir).unwrap();
    let user = dir.join("gate.toml");
    fs::write(&user, "lease_ms = 700\nread_wait = \"2s\"\npolicy = [\"*.mine=none\"]\n").unwrap();
    world.seed("gate.toml", "read_wait = \"3s\"\npolicy = [\"*.ours=none\"]\n");
    let show = world.gate(["config", "show", "source", "--json"]).env("GATE_LEASE_MS", "800");
    let told: Value = serde_json::from_str(&show.run().success()).unwrap();
    assert_eq!(told["version"], 1);
    let setting = |name: &str| {
        let all = told["settings"].as_array().unwrap();
        all.iter().find(|setting| setting["name"] == name).unwrap().clone()
    };
    let by = |value: Value, origin: &str, from: Value| json!({"value": value, "origin": origin, "from": from});
    let lease = setting("lease_ms");
    assert_eq!((&lease["value"], &lease["origin"]), (&json!(800), &json!("variable")));
    assert_eq!(lease["from"], "GATE_LEASE_MS");
    let over = [by(json!(700), "user", json!(user)), by(json!(10_000), "default", json!(null))];
    assert_eq!(lease["over"], json!(over));
    let read_wait = setting("read_wait");
    let source = json!("source/gate.toml");
    assert_eq!((&read_wait["value"], &read_wait["from"]), (&json!("3s"), &source));
    let state = setting("state_dir");
    assert_eq!(
        (&state["value"], &state["from"]),
        (&json!(world.state()), &json!("GATE_STATE_DIR"))
    );
    let rules = told["policy"].as_array().unwrap();
    let expected =
        [by(json!("*.mine=none"), "user", json!(user)), by(json!("*.ours=none"), "source", source)];
    assert_eq!(rules[rules.len() - 2..], expected);
    assert_eq!(rules[0]["origin"], "default");
    let text = world.gate(["config", "show"]).run().success();
    let line = text.lines().find(|line| line.starts_with("lease_ms")).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words, ["lease_ms", "700", user.to_str().unwrap()]);
    let refused = world.gate(["config", "show"]).env("GATE_MAX_HOLD_MS", "x").run();
    assert_eq!(refused.code, Some(2), "{refused}");
    assert!(refused.refusal().contains("GATE_MAX_HOLD_MS"));
}

/// What the file says is what the commands hear: none of them goes on with a setting that it does not know.
#[test]
fn a_setting_that_does_not_exist_is_refused_with_the_one_that_was_meant() {
    let world = World::bare();
    let dir = world.home().join("home/.config/gate");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("gate.toml"), "guard = \"keep\"\nlease_msec = 700\n").unwrap();
    for words in [&["config", "show"][..], &["locks"], &["mount", "source", "view"], &["daemon"]] {
        let refused = world.gate(words).run();
        assert_eq!(refused.code, Some(2), "{refused}");
        let text = refused.refusal();
        assert!(text.contains("line 2") && text.contains("did you mean `lease_ms`?"), "{text}");
    }
}

/// Each of the commands would refuse it, and the file is to be mended: so both are told.
#[test]
fn a_value_that_makes_no_sense_is_refused_with_its_file_and_key() {
    let world = World::bare();
    let dir = world.home().join("home/.config/gate");
    fs::create_dir_all(&dir).unwrap();
    for (text, key) in
        [("policy = [\"a=b\"]", "policy: `a=b`"), ("audit_max_mib = 0", "audit_max_mib: 0")]
    {
        fs::write(dir.join("gate.toml"), text).unwrap();
        for words in [&["config", "show"][..], &["mount", "source", "view"]] {
            let refused = world.gate(words).run();
            assert_eq!(refused.code, Some(2), "{refused}");
            let text = refused.refusal();
            assert!(
                text.contains(".config/gate/gate.toml, line 1") && text.contains(key),
                "{text}"
            );
        }
    }
    fs::remove_file(dir.join("gate.toml")).unwrap();
    world.seed("gate.toml", "\npolicy = [\"a=b\"]\n");
    for words in
        [&["config", "show", "source"][..], &["mount", "source", "view"], &["mount", "source"]]
    {
        let refused = world.gate(words).run();
        assert_eq!(refused.code, Some(2), "{refused}");
        let text = refused.refusal();
        assert!(text.contains("source/gate.toml, line 2") && text.contains("`a=b`"), "{text}");
    }
}

#[test]
fn every_command_has_a_manual_page_that_can_be_read() {
    let world = World::bare();
    let dir = world.home().join("pages/man1");
    world.gate(["man".as_ref(), dir.as_os_str()]).run().success();
    let help = world.gate(["--help"]).run().success();
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands = commands.take_while(|line| !line.is_empty());
    let commands: Vec<&str> =
        commands.map(|line| line.split_whitespace().next().unwrap()).collect();
    assert!(commands.len() > 15, "{help}");
    for command in commands.into_iter().filter(|command| *command != "help") {
        assert!(dir.join(format!("gate-{command}.1")).exists(), "{command}");
    }
    for page in ["gate.1", "gate-mount-add.1", "gate-config-show.1"] {
        assert!(dir.join(page).exists(), "{page}");
    }
    let script = "for page in *.1; do groff -man -Tutf8 -ww -z \"$page\" 2>&1; done";
    let complaints = world.script(&dir, script).run().success();
    assert_eq!(complaints, "");
    let one = world.gate(["man", "--page", "hold"]).run().success();
    assert_eq!(one, fs::read_to_string(dir.join("gate-hold.1")).unwrap());
    let refused = world.gate(["man", "--page", "nonsense"]).run();
    assert_eq!(refused.code, Some(2), "{refused}");
    assert!(refused.refusal().contains("gate --help"));
}
