#!/bin/bash
# One worker of a run on several hosts. Run it on each host, with the same list of all workers and that host's place
# in it, counted from 0:
#
#   WORKERS="host0:2222 host1:2222" INDEX=0 strategies/launch/tf_config.sh --model=cnn --workdir=/shared/runs/cnn
#
# The hosts need the same version of the project, a shared filesystem for --workdir, and the ports open to each other.
# One that begins early waits for the rest. They also end together: if one dies, start all of them again with the same
# command, and they resume from the newest checkpoint. Exit code 75 (one was sent SIGTERM) asks for the same.
set -euo pipefail

usage() {
    echo "error: $1" >&2
    exit 2
}

read -ra workers <<< "${WORKERS:-}"
index=${INDEX:-}
[ ${#workers[@]} -gt 0 ] || usage '`WORKERS` must list all workers as "host:port host:port ...". Received: nothing'
for worker in "${workers[@]}"; do
    [[ $worker =~ ^[A-Za-z0-9._-]+:[0-9]+$ ]] || usage "\`WORKERS\` must be of the form host:port. Received: $worker"
done
[[ $index =~ ^(0|[1-9][0-9]*)$ ]] && [ "$index" -lt ${#workers[@]} ] ||
    usage "\`INDEX\` must be one of 0 to $((${#workers[@]} - 1)), for ${#workers[@]} workers. Received: INDEX=$index"

list=$(printf ', "%s"' "${workers[@]}")
export TF_CONFIG="{\"cluster\": {\"worker\": [${list:2}]}, \"task\": {\"type\": \"worker\", \"index\": $index}}"
exec python "$(dirname "$0")/../../train.py" --strategy=multiworker "$@"
