import Membership

extension HealthMachine {
    /// All backends in the order of the configuration, for the admin listener.
    package var listing: [BackendStatus] {
        services.flatMap { service in
            service.backends.map { backend in
                BackendStatus(
                    backend: backend.key, state: Self.state(backend), isAvailable: backend.condition.isAvailable,
                    since: backend.since, reason: "\(backend.condition); \(evidence(backend, service))",
                    votes: liveHere(service).map {
                        ($0, backend.verdicts.verdict(of: $0, check: service.check)?.state ?? .up)
                    },
                    word: backend.word.flatMap { $0.word == .auto ? nil : $0 },
                    lastFailure: backend.monitor.lastFailure, changes: backend.changes)
            }
        }
    }

    /// What the nodes agree on, or an operator has said; for who cannot ask the others, what it has found itself.
    static func state(_ backend: Backend) -> BackendStatus.State {
        switch backend.word?.word {
        case .drain: .draining
        case .down: .down
        case .up: .up
        case .auto, nil:
            switch (backend.agreed, backend.condition) {
            case (.down, _), (_, .downHere): .down
            case (.up, _), (.kept, _): .up
            }
        }
    }

    /// The evidence of whoever speaks against the backend, else this node's own.
    func evidence(_ backend: Backend, _ service: Service) -> String {
        let accusers = liveHere(service).filter {
            $0 != node && backend.verdicts.verdict(of: $0, check: service.check)?.state == .down
        }
        if backend.monitor.standing == .up, let first = accusers.first,
            let evidence = backend.verdicts.verdict(of: first, check: service.check)?.evidence
        {
            return "\(first): \(evidence)"
        }
        return backend.monitor.evidence
    }
}
