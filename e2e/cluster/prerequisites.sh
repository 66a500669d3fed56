#!/bin/bash
# Installs what `cluster up` runs: prerequisites.sh
#
# Debian packages, and only those that are missing. A containerd that runs
# already is neither used nor touched: the cluster starts a separate one.
set -euo pipefail

missing=()
need() { # PACKAGE FILE
	[ -e "$2" ] || missing+=("$1")
}
need containerd /usr/bin/containerd
need runc /usr/sbin/runc
need containernetworking-plugins /usr/lib/cni/ptp
need nftables /usr/sbin/nft
need iptables /usr/sbin/iptables
need iproute2 /usr/sbin/ip
need mount /usr/bin/mount

if [ ${#missing[@]} -eq 0 ]; then
	echo "All prerequisites are installed."
	exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
	echo "$0: these packages are missing, and installing them needs root: ${missing[*]}" >&2
	exit 1
fi
echo "Installing ${missing[*]}."
export DEBIAN_FRONTEND=noninteractive
# Debian's containerd starts a service where systemd runs. The cluster does not
# need it, so it is not started; one that was installed before goes on.
log=$(mktemp)
trap 'rm -f "$log"' EXIT
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	trap 'rm -f "$log" "$policy"' EXIT
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod +x "$policy"
fi
if ! { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >"$log" 2>&1 </dev/null; then
	tail -n 20 "$log" >&2
	echo "$0: apt-get failed" >&2
	exit 1
fi
