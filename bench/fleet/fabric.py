"""Fabric as one of the clients that fleet measures: see the type spec in client.go."""
import json, resource, sys, time
from fabric import Config, Connection, ThreadingGroup


def cpu():
    r = resource.getrusage(resource.RUSAGE_SELF)
    return r.ru_utime + r.ru_stime


def peak():
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    return 0


spec = json.loads(sys.stdin.readline())
config = Config(overrides={"load_ssh_configs": False}, lazy=True)
how = {"key_filename": spec["Key"], "look_for_keys": False, "allow_agent": False}
group = ThreadingGroup.from_connections(
    [Connection(h, spec["User"], spec["Port"], config=config, connect_kwargs=how) for h in spec["Hosts"]]
)
for line in iter(sys.stdin.readline, ""):
    ok, err, began = 0, "", time.monotonic()
    if line == "run\n":
        try:
            ok = sum(r.ok for r in group.run("true", hide=True).values())
        except Exception as e:
            err = repr(e)
    print(json.dumps({
        "OK": ok, "Err": err, "Wall": int((time.monotonic() - began) * 1e9),
        "CPU": int(cpu() * 1e9), "Peak": peak(),
    }), flush=True)
group.close()
