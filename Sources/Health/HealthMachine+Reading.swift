// The hash of a service as one reading found it: the others' verdicts are taken in, this node's own are compared with
// what it thinks, and what nobody needs any more is removed.

import Membership
import Primitives

extension HealthMachine {
    /// The whole hash of a service, as it was when Redis executed the command.
    package mutating func snapshot(
        service name: String, _ fields: [(field: String, value: [UInt8])], at now: HealthMoment,
        into actions: inout [HealthAction]
    ) {
        guard isJoined, let s = services.firstIndex(where: { $0.name == name }) else { return }
        var own: [String: HealthVerdict] = [:]
        var fieldsByAuthor: [NodeID: [String]] = [:]
        var present = services[s].backends.map { _ in Set<NodeID>() }
        var removals: [String] = []
        for (field, value) in fields {
            do throws(HealthFormatError) {
                let (url, author) = try HealthKeys.parse(field: field)
                let key = BackendKey(service: name, url: url)
                if author == node, index[key] == nil {
                    // Of a backend that the configuration of this node no longer names.
                    removals.append(field)
                    continue
                }
                fieldsByAuthor[author, default: []].append(field)
                let verdict = try HealthVerdict(json: value)
                if author == node {
                    own[url] = verdict
                } else if let (_, b) = index[key] {
                    present[b].insert(author)
                    let outcome = services[s].backends[b].verdicts.read(
                        verdict, of: author, requested: services[s].readRequested)
                    took(outcome, s, b, verdict, now)
                }
            } catch {
                ignored(error, at: now, into: &actions)
            }
        }
        services[s].isShared = true
        services[s].isCutOff = false
        for b in services[s].backends.indices {
            services[s].backends[b].verdicts.found(present[b], butAlways: node)
            reconcile(s, b, field: own[services[s].backends[b].key.url], now, &removals, &actions)
        }
        removals += fieldsOfGone(s, fieldsByAuthor, now)
        if !removals.isEmpty { actions.append(.remove(service: name, fields: removals.sorted())) }
        evaluate(s, now, &actions)
        for b in services[s].backends.indices { startProbeIfDue(s, b, now, &actions) }
    }

    /// Compares what the hash says in this node's name with what this node says.
    private mutating func reconcile(
        _ s: Int, _ b: Int, field: HealthVerdict?, _ now: HealthMoment, _ removals: inout [String],
        _ actions: inout [HealthAction]
    ) {
        let backend = services[s].backends[b]
        if let said = backend.own {
            if said.state == .down, field != said || backend.renewDue <= now.monotonic {
                renew(s, b, now, &actions)
            } else if field != said {
                publish(s, b, &actions)
            }
            return
        }
        let check = services[s].check
        guard let field, field.state == .down, services[s].settings.active, field.check ?? check == check else {
            // Silence means up. Nothing would ever bring an answer to an earlier run's verdict without probes.
            if field != nil { removals.append(HealthKeys.field(url: backend.key.url, node: node)) }
            services[s].backends[b].verdicts.forget(node)
            services[s].backends[b].isInherited = false
            return
        }
        guard !backend.isInherited else { return }
        _ = services[s].backends[b].verdicts.merge(field, of: node, at: now.monotonic)
        services[s].backends[b].isInherited = true
        services[s].backends[b].monitor.confirm(at: now.monotonic)
    }

    /// The fields of nodes that have not been alive for so long that membership has forgotten them.
    private mutating func fieldsOfGone(
        _ s: Int, _ fieldsByAuthor: [NodeID: [String]], _ now: HealthMoment
    ) -> [String] {
        let live = Set(liveNodes)
        var absent: [NodeID: MonotonicTime] = [:]
        var fields: [String] = []
        for (author, theirs) in fieldsByAuthor where !live.contains(author) {
            let since = services[s].absentSince[author] ?? now.monotonic
            absent[author] = since
            if now.monotonic - since >= MembershipView.forgetAfter { fields += theirs }
        }
        services[s].absentSince = absent
        return fields
    }
}
