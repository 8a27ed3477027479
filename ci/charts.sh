#!/usr/bin/env bash
# charts.sh - charts are well formed, refuse wrong values, and render; the API server's own verdict comes in the e2e suite.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# The same build as that of the unit tests, so that nothing is compiled twice.
cargo test -q --workspace --exclude crds --no-run
"${CARGO_TARGET_DIR:-target}/debug/harness" build
helm=${CARGO_TARGET_DIR:-target}/cluster-bin/current/helm

"$helm" lint --strict charts/gonka-fleet-crds charts/gonka-fleet
for values in "" "agent.managedBy=Helm" "admissionPolicies.enabled=false" "networkPolicies.enabled=false" "hostNamespaces.names={a,b}" "monitoring.prometheusRules=true" "monitoring.podMonitors=true" "fleetSignal.tls.secretName=mine" "fleetSignal.acceptPlaintext=true"; do
    "$helm" template gonka charts/gonka-fleet --namespace gonka-system ${values:+--set "$values"} >/dev/null
done
"$helm" template gonka charts/gonka-fleet-crds >/dev/null
for wrong in operator.replicas=0 agent.managedBy=Nobody hostNamespaces.names={} admissionPolicies.podCIDRs={all} operator.replica=3 fleetSignal.tls.secretName=Mine; do
    if "$helm" template gonka charts/gonka-fleet --set "$wrong" >/dev/null 2>&1; then
        echo "charts: the schema accepted the wrong value $wrong" >&2
        exit 1
    fi
done
# The operator raises an alarm when a policy is gone: it must know of every one that is rendered.
rendered=$("$helm" template gonka charts/gonka-fleet --namespace gonka-system)
watched=$(sed -n 's/.*ADMISSION_POLICIES, value: "\(.*\)".*/\1/p' <<<"$rendered" | tr , '\n' | sort)
policies=$(awk '/^kind: ValidatingAdmissionPolicy$/ {found = 1} found && /^  name: / {print $2; found = 0}' <<<"$rendered" | sort)
if [ "$watched" != "$policies" ]; then
    echo "charts: policies that are rendered and those the operator watches over differ:" >&2
    diff <(echo "$policies") <(echo "$watched") >&2
    exit 1
fi
echo "charts: rendered with every switch, wrong values refused"
