//! Tools that know nothing of Gate do in the view what they do on the bare directory.
//!
//! Each script runs in the view and in the twin: same output, same exit status, same tree.

use std::path::Path;
use std::time::Duration;

use gate_tests::{World, scaled};

/// Long enough for a `git gc` on a busy machine of two cores.
const DEADLINE: Duration = Duration::from_secs(120);
/// The same for a build of all there is.
const BUILD_DEADLINE: Duration = Duration::from_secs(1800);

/// Below these names lie bytes that differ from run to run: times, inode numbers, build ids.
pub const UNSTABLE: [&str; 3] = [".git", "clone/.git", "target"];

/// Returns a script of all that git does, with so many directories of so many files.
pub fn git(side: usize) -> String {
    let script = r#"
        mkdir origin clone
        cd origin
        git init -q -b main
        for d in $(seq SIDE); do
            mkdir -p src/$d
            for f in $(seq SIDE); do echo "line $d $f" > src/$d/$f.txt; done
        done
        git add . && git commit -q -m first && git ls-files | wc -l
        cd ..
        git clone -q --no-local origin clone
        cd clone
        git switch -q -c topic
        for f in $(seq SIDE); do echo "topic" >> src/7/$f.txt; done
        git commit -q -a -m topic
        git switch -q main
        for f in $(seq SIDE); do sed -i '1i above' src/7/$f.txt; done
        git mv src/8 src/eight
        git rm -q -r src/9
        git commit -q -a -m main
        git rebase -q main topic
        git stash list
        git tag -a -m tagged v1
        git gc -q --prune=now
        git fsck --full --strict --no-progress
        git status --porcelain
        git rev-parse HEAD HEAD^ HEAD^^{tree}
        git count-objects -v | grep -E '^(count|packs|garbage)'
        git worktree add -q ../work HEAD~1 && git -C ../work rev-parse HEAD
        git worktree remove ../work
        git push -q origin topic && git -C ../origin rev-parse topic
        rm -rf ../origin
    "#;
    script.replace("SIDE", &side.to_string())
}

#[test]
fn git_clone_commit_rebase_gc_and_fsck_of_two_thousand_files() {
    check(&git(45));
}

#[test]
fn cargo_builds_and_rebuilds_a_crate() {
    check(
        r#"
        mkdir src
        printf '[package]\nname = "tiny"\nversion = "0.1.0"\nedition = "2024"\n' > Cargo.toml
        echo 'fn main() { println!("one"); }' > src/main.rs
        cargo build -q --offline && target/debug/tiny
        sed -i s/one/two/ src/main.rs
        cargo run -q --offline
        "#,
    );
}

/// A part of it, and in the long tier all of it; what was built is not built again.
#[test]
fn this_project_builds_in_a_view() {
    let world = World::new();
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let script = r#"
        git -C "$1" ls-files -z | (cd "$1" && tar --null -T - -c) | tar -x
        for round in 1 2; do cargo build --offline --locked $2 2>&1 | tee log | tail -1; done
        ! grep Compiling log
    "#;
    let part = ["--package gate-core", "--workspace"][scaled(0, 1)];
    let run =
        world.script(&world.view(), script).args(["project".as_ref(), project, part.as_ref()]);
    let said = run.within(BUILD_DEADLINE).run().success();
    assert_eq!(said.matches("Finished").count(), 2, "{said}");
}

#[test]
fn make_builds_a_c_program_and_rebuilds_it_beside_the_running_one() {
    check(
        r#"
        cat > Makefile <<'END'
prog: main.o part.o
	$(CC) -o $@ $^
main.o part.o: part.h
END
        echo 'const char *part(void);' > part.h
        printf '#include "part.h"\nconst char *part(void) { return "one"; }\n' > part.c
        printf '#include <stdio.h>\n#include "part.h"\nint main(void) { printf("%%s start\\n", part()); fflush(stdout); getchar(); puts(part()); }\n' > main.c
        make -s -j2
        mkfifo in
        ./prog < in > out &
        exec 3> in
        until grep -q start out; do :; done
        sed -i s/one/two/ part.c
        make -s -j2
        echo | ./prog
        echo >&3
        wait $!
        cat out
        rm -f *.o prog
        "#,
    );
}

#[test]
fn vim_saves_in_each_of_its_ways() {
    check(
        r#"
        for copy in yes no auto; do
            for backup in backup nobackup; do
                f=$copy-$backup.txt
                printf 'a\nb\nc\n' > $f && chmod 640 $f
                vim -u NONE -N -es $f -c "set swapfile backupcopy=$copy $backup" \
                    -c '%s/b/changed/' -c 'normal Goend' -c w -c '1d' -c wq
                cat $f
            done
        done
        ls -A
        "#,
    );
}

#[test]
fn nano_saves() {
    check(
        r#"
        printf 'a\nb\n' > f.txt
        screen=$(mktemp) keys=$(mktemp -u) && mkfifo $keys
        script -qfec 'stty rows 24 cols 80; exec nano f.txt' /dev/null < $keys > $screen &
        exec 3> $keys
        until grep -q Exit $screen; do :; done
        printf 'typed \x0f' >&3
        until grep -q 'to Write' $screen; do :; done
        printf '\r' >&3
        until grep -q Wrote $screen; do :; done
        printf '\x18' >&3
        wait $!
        cat f.txt
        "#,
    );
}

#[test]
fn sed_and_coreutils_change_files_in_place() {
    check(
        r#"
        for i in $(seq 100); do echo "value $i" > $i.txt; done
        sed -i 's/value/number/' *.txt
        sed -i.bak '1d' 7.txt
        cat *.txt | md5sum
        cp -a 1.txt copy && mv copy moved && ln moved hard && ln -s moved soft
        install -m 755 2.txt tool && truncate -s 10000 sparse && dd if=/dev/zero of=sparse bs=1 count=1 seek=20000 status=none
        touch -d 2001-02-03 moved && stat -c '%Y %s %h %a' moved && stat -c '%s %h %a' sparse
        chmod -R g+w . && mkdir -p a/b/c && mv a d && rmdir d/b/c && find . -type d | sort
        sort -o 1.txt 1.txt && shuf -n 0 1.txt && tee < 2.txt new.txt
        rm nothing 2>&1 || echo $?
        mkdir a && rmdir d 2>&1 || echo $?
        ln moved hard 2>&1 || echo $?
        mv moved 1.txt/x 2>&1 || echo $?
        find . -name '3*.txt' -delete && ls
        "#,
    );
}

#[test]
fn rsync_copies_in_and_out() {
    check(
        r#"
        out=$(mktemp -d)
        mkdir -p $out/tree/{a,b} in
        for i in $(seq 200); do head -c $((i * 97)) /dev/zero | tr '\0' "x" > $out/tree/a/$i; done
        ln -s a/1 $out/tree/link && ln $out/tree/a/2 $out/tree/b/hard && chmod 600 $out/tree/a/3
        touch -d 2001-02-03 $out/tree
        rsync -aHi $out/tree/ in/ | wc -l
        rsync -aHi $out/tree/ in/
        echo changed >> in/a/5 && rm in/a/6 && touch -d 2001-02-03 in/a/5 in/a
        rsync -aHic --delete in/ $out/tree/
        rsync -aHic --delete --inplace --no-whole-file $out/tree/ in/
        diff -r $out/tree in
        "#,
    );
}

#[test]
fn tar_packs_and_unpacks() {
    check(
        r#"
        mkdir -p t/d && for i in $(seq 300); do echo $i > t/d/$i; done
        ln t/d/1 t/hard && ln -s d/2 t/soft && mkfifo t/fifo && chmod 4755 t/d/4 && chmod 1777 t
        touch -d 2001-02-03 t/d/5
        tar --sort=name -cf t.tar t && tar -tf t.tar | md5sum && tar -tvf t.tar t/d/4 t/d/5 | cut -c 1-10
        mkdir u && tar -xpf t.tar -C u && diff -r --no-dereference t/d u/t/d && stat -c %Y u/t/d/5
        rm t.tar
        "#,
    );
}

#[test]
fn sqlite_commits_a_thousand_transactions() {
    // One name that the shipped policies leave ungated, one that is gated.
    for name in ["data.sqlite", "data"] {
        check(&format!(
            r#"
            echo 'create table t (id integer primary key, text);' | sqlite3 {name}
            {{ echo 'pragma synchronous = off;'
               for i in $(seq 1000); do echo "insert into t (text) values ('row $i');"; done
            }} | sqlite3 -bail {name}
            sqlite3 {name} 'select count(*), sum(length(text)) from t; pragma integrity_check'
            "#
        ));
    }
}

#[test]
fn two_sqlite_processes_share_a_database() {
    for name in ["data.db", "data"] {
        check(&format!(
            r#"
            sqlite3 {name} 'create table t (who, i)'
            write() {{
                {{ printf '.timeout 60000\npragma synchronous = off;\n'
                   for i in $(seq 200); do echo "insert into t values ($1, $i);"; done
                }} | sqlite3 -bail {name}
            }}
            write 1 & first=$!
            write 2
            wait $first
            sqlite3 {name} 'select who, count(*), sum(i) from t group by who order by who'
            sqlite3 {name} 'pragma integrity_check'
            rm {name}*
            "#
        ));
    }
}

#[test]
fn ripgrep_finds_the_same() {
    check(
        r#"
        git init -q .
        echo 'ignored/' > .gitignore
        for d in $(seq 20) ignored; do
            mkdir $d
            for f in $(seq 50); do echo "needle $d $f" > $d/$f.txt; done
        done
        rg --sort path -n 'needle 1[0-9]? 7' && rg -c needle | wc -l
        rg --no-messages nothing || echo $?
        rg needle missing 2>&1 || echo $?
        "#,
    );
}

#[track_caller]
fn check(script: &str) {
    World::new().same_as_bare(script, DEADLINE, &UNSTABLE);
}
