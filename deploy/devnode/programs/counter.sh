#!/bin/sh
# Counts in memory only and says so several times a second: "tick N <seconds since boot>".
n=${COUNTER_START:-0}
while :; do
    n=$((n + 1))
    read -r up _ < /proc/uptime
    echo "tick $n $up"
    sleep 0.1
done
