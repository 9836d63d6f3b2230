# docs_fresh.sh PROGRAM DIR -- is the reference in the tree what the program's tables say?
set -u
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
"$1" gen-docs "$dir" || exit 1
diff -ru "$2" "$dir" && exit 0
echo "the reference is old: run 'sluice gen-docs docs/cli' and commit the result"
exit 1
