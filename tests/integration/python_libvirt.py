# SPDX-License-Identifier: ISC
"""What programs do with libvirt's API: look up, list, define, start, listen, migrate, ask for
statistics, and meet errors. python_libvirt.py URI1 URI2 XML-FILE TARGET; the guest ends on host 2."""
import sys
import threading
import time

import libvirt

uri1, uri2, xml_file, target = sys.argv[1:]
xml = open(xml_file, encoding="ascii").read()
lifecycle, iterations, jobs = [], [], []


def loop():
    while True:
        libvirt.virEventRunDefaultImpl()


def check(what, good, got=""):
    if not good:
        sys.exit(f"{what}: {got}")


def wait(what, good, seconds=20):
    end = time.monotonic() + seconds
    while not good():
        check(f"waited in vain: {what}", time.monotonic() < end, f"{lifecycle} {jobs}")
        time.sleep(0.05)


def fails(what, code, call, *args):
    try:
        call(*args)
    except libvirt.libvirtError as e:
        check(what, e.get_error_code() == code, f"code {e.get_error_code()}, not {code}: {e}")
        print(f"  {what}: {e}")
        return
    sys.exit(f"{what}: did not fail")


libvirt.registerErrorHandler(lambda *_: None, None)  # errors are raised, not printed
libvirt.virEventRegisterDefaultImpl()
threading.Thread(target=loop, daemon=True).start()
host1, host2 = libvirt.open(uri1), libvirt.open(uri2)
listener1, listener2 = libvirt.openReadOnly(uri1), libvirt.open(uri2)

print("the host")
check("type", host1.getType() == "xvm", host1.getType())
check("version", host1.getVersion() >= 1000000, host1.getVersion())
check("library", host1.getLibVersion() >= 9000000, host1.getLibVersion())
check("host name", host1.getHostname() == "host1", host1.getHostname())
check("CPUs", host1.getInfo()[2] > 0, host1.getInfo())
check("memory", host1.getFreeMemory() > 1 << 20, host1.getFreeMemory())
check("capabilities", "<capabilities>" in host1.getCapabilities())
check("alive", host1.isAlive() == 1)
check("encrypted or local", host1.isSecure() == 1 and host1.isEncrypted() == 0)
check("no domains", host1.listAllDomains() == [] and host1.numOfDomains() == 0)

print("errors")
fails("no such name", libvirt.VIR_ERR_NO_DOMAIN, host1.lookupByName, "nobody")
fails("no such uuid", libvirt.VIR_ERR_NO_DOMAIN, host1.lookupByUUIDString,
      "11111111-2222-3333-4444-555555555555")
fails("no such id", libvirt.VIR_ERR_NO_DOMAIN, host1.lookupByID, 4711)
fails("no XML", libvirt.VIR_ERR_XML_ERROR, host1.defineXML, "<domain")
fails("not supported", libvirt.VIR_ERR_CONFIG_UNSUPPORTED, host1.defineXML,
      xml.replace("<vcpu", "<bogus/><vcpu"))
fails("networks", libvirt.VIR_ERR_NO_SUPPORT, host1.listAllNetworks)
fails("another driver", libvirt.VIR_ERR_NO_CONNECT, libvirt.open, uri1.replace("xvm:", "qemu:"))

print("events and a life")
for connection, name in ((listener1, 1), (listener2, 2)):
    connection.domainEventRegisterAny(
        None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE,
        lambda _c, d, event, detail, h: lifecycle.append((h, d.name(), event, detail)), name)
    connection.domainEventRegisterAny(
        None, libvirt.VIR_DOMAIN_EVENT_ID_MIGRATION_ITERATION,
        lambda _c, d, n, h: iterations.append((h, n)), name)
    connection.domainEventRegisterAny(
        None, libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED,
        lambda _c, d, params, h: jobs.append((h, params)), name)
plain = []
old_style = libvirt.open(uri1)
old_style.domainEventRegister(lambda _c, d, event, detail, _o: plain.append((event, detail)), None)
dom = host1.defineXML(xml)
uuid = dom.UUIDString()
check("define", dom.name() == "py1" and dom.isPersistent() == 1 and dom.isActive() == 0)
fails("defined twice", libvirt.VIR_ERR_DOM_EXIST, host1.defineXML, xml)
fails("suspend of what is off", libvirt.VIR_ERR_OPERATION_INVALID, dom.suspend)
check("listed as off", [d.name() for d in host1.listAllDomains(
    libvirt.VIR_CONNECT_LIST_DOMAINS_INACTIVE)] == ["py1"])
dom.create()
fails("started twice", libvirt.VIR_ERR_OPERATION_INVALID, dom.create)
check("by name, uuid, id", host1.lookupByName("py1").UUIDString() == uuid and
      host1.lookupByUUIDString(uuid).ID() == dom.ID() and
      host1.lookupByID(dom.ID()).name() == "py1")
check("state", dom.state()[0] in (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_BLOCKED), dom.state())
dom.suspend()
check("paused", dom.state() == [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER], dom.state())
dom.resume()
check("info", dom.info()[1] == 65536 and dom.info()[3] == 1, dom.info())
check("XML", uuid in dom.XMLDesc() and f"id=\"{dom.ID()}\"" in dom.XMLDesc())
stats = host1.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_STATE | libvirt.VIR_DOMAIN_STATS_VCPU)
check("statistics", stats[0][1]["vcpu.current"] == 1 and "vcpu.0.time" in stats[0][1], stats)
fails("a guest's clock", libvirt.VIR_ERR_NO_SUPPORT, dom.getTime)
check("no job", dom.jobInfo()[0] == libvirt.VIR_DOMAIN_JOB_NONE, dom.jobInfo())
fails("no job to end", libvirt.VIR_ERR_OPERATION_INVALID, dom.abortJob)
reader = libvirt.openReadOnly(uri1)
fails("read-only", libvirt.VIR_ERR_OPERATION_DENIED, reader.lookupByName("py1").destroy)
wait("events", lambda: (1, "py1", libvirt.VIR_DOMAIN_EVENT_RESUMED, 0) in lifecycle)
seen = [e[2:] for e in lifecycle]
check("events in order", seen == [(libvirt.VIR_DOMAIN_EVENT_DEFINED, 0), (libvirt.VIR_DOMAIN_EVENT_STARTED, 0),
                                  (libvirt.VIR_DOMAIN_EVENT_SUSPENDED, 0), (libvirt.VIR_DOMAIN_EVENT_RESUMED, 0)], seen)
wait("the same for the older call", lambda: plain == seen)

print("a migration that is aborted")
P2P = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PEER2PEER
result = []


def move(params):
    try:
        host1.lookupByName("py1").migrateToURI3(target, params, P2P)
        result.append(None)
    except libvirt.libvirtError as e:
        result.append(e)


mover = threading.Thread(target=move, args=({libvirt.VIR_MIGRATE_PARAM_BANDWIDTH: 1},))
mover.start()
wait("a job", lambda: dom.jobInfo()[0] == libvirt.VIR_DOMAIN_JOB_UNBOUNDED and dom.jobInfo()[5] > 0)
stats = dom.jobStats()
check("statistics while it goes on", stats["operation"] == libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT and
      stats["data_remaining"] > 0, stats)
fails("destroy meanwhile", libvirt.VIR_ERR_OPERATION_INVALID, dom.reboot)
dom.abortJob()
mover.join(20)
check("the abort", result and result[0] is not None and
      result[0].get_error_code() == libvirt.VIR_ERR_OPERATION_ABORTED, result)
check("it is still here", dom.isActive() == 1)
wait("job completed: failed", lambda: any(h == 1 and not p["success"] for h, p in jobs))
jobs.clear()

print("a migration")
fails("a parameter that there is none of", libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED, dom.migrateToURI3, target,
      {libvirt.VIR_MIGRATE_PARAM_GRAPHICS_URI: "spice://x"}, P2P)
dom.migrateToURI3(target, {libvirt.VIR_MIGRATE_PARAM_PARALLEL_CONNECTIONS: 2}, P2P | libvirt.VIR_MIGRATE_PARALLEL)
check("gone from here", dom.isActive() == 0)
there = host2.lookupByUUIDString(uuid)
check("and there", there.isActive() == 1 and there.name() == "py1")
stats = dom.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)
check("statistics afterwards", stats["type"] == libvirt.VIR_DOMAIN_JOB_COMPLETED and
      stats["downtime"] > 0 and stats["data_processed"] > 1 << 20, stats)
wait("job completed on both", lambda: {h for h, p in jobs if p["success"]} == {1, 2})
wait("stopped", lambda: (1, "py1", libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_MIGRATED) in lifecycle)
wait("started", lambda: (2, "py1", libvirt.VIR_DOMAIN_EVENT_STARTED, libvirt.VIR_DOMAIN_EVENT_STARTED_MIGRATED) in lifecycle)
wait("runs", lambda: (2, "py1", libvirt.VIR_DOMAIN_EVENT_RESUMED, libvirt.VIR_DOMAIN_EVENT_RESUMED_MIGRATED) in lifecycle)
check("iterations", (1, 1) in iterations and (1, 2) in iterations, iterations)

print("a migration that the client conducts")
back = there.migrate3(host1, {}, libvirt.VIR_MIGRATE_LIVE)
check("back", back.UUIDString() == uuid and back.isActive() == 1 and dom.isActive() == 1)
dom.migrateToURI3(uri2.replace("xvm:", "xvm+unix:"), {libvirt.VIR_MIGRATE_PARAM_URI: target}, P2P)
check("there again", host2.lookupByUUIDString(uuid).isActive() == 1)

print("transient domains, and the end")
brief = host1.createXML(xml.replace("py1", "py2"), libvirt.VIR_DOMAIN_START_PAUSED)
check("transient", brief.isPersistent() == 0 and brief.state()[0] == libvirt.VIR_DOMAIN_PAUSED)
brief.destroy()
fails("a transient one that has ended", libvirt.VIR_ERR_NO_DOMAIN, brief.info)
dom.undefine()
fails("undefined", libvirt.VIR_ERR_NO_DOMAIN, dom.info)
for connection in (listener1, listener2, reader, old_style, host1, host2):
    connection.close()
print("done")
