//! `gate man`.

use std::fs;

use gate_tests::World;

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
    for page in ["gate.1", "gate-mount-add.1"] {
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
