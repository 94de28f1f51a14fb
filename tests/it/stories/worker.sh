# One who works on a crate: deed after deed, chosen at random, each with a mark of its own.
#
# worker.sh DIR RECORD GATE NAME RUN SEED ROUNDS DEED…
#
# What was done is written down, where no view reaches, once it was done; what failed, too, and what
# was put off: nobody was hurt, and it is done another time.
set -u
dir=$1 record=$2/$4 stop=$2/stop gate=$3 name=$4 run=$5 RANDOM=$6 rounds=$7
shift 7
deeds=("$@")

add() { echo "$line" >> "$file"; }
edit() { sed -i "1a $line" "$file"; }
save() {
    { cat "$file"; echo "$line"; } > "$file.$name"
    mv "$file.$name" "$file"
}
rewrite() {
    local text
    text=$(cat "$file")
    printf '%s\n%s\n' "$text" "$line" > "$file"
}
add_held() { "$gate" hold "$file" -- sh -c 'echo "$1" >> "$0"' "$file" "$line"; }
edit_held() { "$gate" hold "$file" -- sed -i "1a $line" "$file"; }
# Over many files: whoever sees some of them with the old name and some with the new cannot build.
# Who holds them all finds what it wrote itself in each.
rename_held() {
    "$gate" hold src/calls -- sh -c '
        sed -i "s/\bstep_[0-9]*/$0/" src/calls/*.rs || exit
        torn=$(grep -L "\b$0\b" src/calls/*.rs)
        [ $? != 2 ] || exit
        [ -z "$torn" ] || { echo torn: $(wc -c $torn); exit 1; }' step_$RANDOM
}
# Several commit; git lets one in and tells the others so. It reads as much of a file as there was
# when it looked last, and minds if that became less before it opened it, or if the view that it
# works in was replaced.
commit() {
    local said
    said=$(git commit -q -a -m "$mark" 2>&1) && return
    local fine='index.lock|cannot lock ref|nothing to commit|no changes added|nothing added'
    grep -qE "$fine|short read|current working directory|run in a work tree" <<< "$said" && exit 75
    echo "$said" >&2
    return 1
}
# From without: who works in a view that is replaced works on at no path any more, and cargo minds.
# What it starts in the view may mind as well, if that happens before it has begun, and rustc says so
# in other words than cargo: then once more.
build() {
    local said try
    cd /
    for try in 1 2 3; do
        said=$("$gate" hold --read "$dir/src" -- \
            cargo build -q --offline --manifest-path "$dir/Cargo.toml" 2>&1) && return
        grep -qE 'urrent (working )?directory' <<< "$said" || break
    done
    echo "$said" >&2
    return 1
}

for ((n = 1; n <= rounds; n++)); do
    [ ! -e "$stop" ] || break
    mark=${name}_${run}_$n
    # Every other time it is one of few, so that they meet.
    file=src/parts/p$(printf %02d $((RANDOM % (RANDOM % 2 ? 24 : 3)))).rs
    line="pub const $mark: u32 = $n;"
    deed=${deeds[RANDOM % ${#deeds[@]}]}
    said=$( (set -e; cd "$dir"; "$deed") 2>&1)
    code=$?
    echo -n "$said" >&2
    # Who has one file open and wants another may be told of a circle.
    [[ $code = 0 || $said != *[Dd]eadlock* ]] || code=circle
    case $code:$deed in
        circle:* | 75:commit) echo "put off $deed" ;;
        0:rename_held | 0:commit | 0:build) echo "done $deed" ;;
        0:*) echo "done $deed $mark $file" ;;
        *:rename_held) echo "failed $deed" ${said//$'\n'/ } ;;
        *) echo "failed $deed $code" ;;
    esac >> "$record"
done
