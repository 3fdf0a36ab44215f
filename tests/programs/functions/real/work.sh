# A little of everything that a shell does, the same each time; ends by a signal.
echo ready
read -r line
trap 'echo end' EXIT
trap 'echo signal' USR1
kill -USR1 $$
down() { [ "$1" -gt 0 ] && down $(($1 - 1)); echo "$1"; }
down 20
for n in 1 2 3 4 5; do (exit $n); echo $?; done
echo abc | sed 's/b/x/' | tr a-z A-Z
{ (kill -9 "$(exec sh -c 'echo $PPID')"); } 2>/dev/null
echo $?
words='one two three'
for word in $words; do case $word in t*) echo "${word#t} ${word%e}";; esac; done
trap - EXIT
kill -TERM $$
