import Membership

extension HealthMachine {
    /// All backends in the order of the configuration, for the admin listener.
    package var listing: [BackendStatus] {
        services.flatMap { service in
            let live = countedNodes(service)
            return service.backends.map { backend in
                BackendStatus(
                    backend: backend.key, state: backend.agreed == .down ? .down : .up,
                    isAvailable: backend.condition.isAvailable, since: backend.since,
                    reason: reason(backend, live, service.check),
                    votes: live.map { ($0, backend.verdicts.verdict(of: $0, check: service.check)?.state ?? .up) })
            }
        }
    }

    /// The condition, and the evidence of whoever speaks against the backend, else this node's own.
    private func reason(_ backend: Backend, _ live: [NodeID], _ check: UInt64) -> String {
        let accusers = live.filter { $0 != node && backend.verdicts.verdict(of: $0, check: check)?.state == .down }
        if backend.monitor.standing == .up, let first = accusers.first,
            let evidence = backend.verdicts.verdict(of: first, check: check)?.evidence
        {
            return "\(backend.condition); \(first): \(evidence)"
        }
        return "\(backend.condition); \(backend.monitor.evidence)"
    }
}
