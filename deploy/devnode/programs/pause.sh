#!/bin/sh
# Holds a sandbox's namespaces, reaps what ends in them, ends when told to.
trap 'exit 0' TERM INT
while :; do
    sleep 2147483647 &
    wait $!
done
