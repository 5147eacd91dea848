// What operators say of backends, and what they are shown.

import Balancing
package import Configuration
import EventLoop
package import Health
import LinuxIO
import Primitives

/// A backend as this node shows it to operators.
package struct BackendRow: Sendable {
    package var status: BackendStatus
    /// Requests of this node that are under way there.
    package var inFlight: Int
    /// The same over all nodes, where they tell each other.
    package var clusterInFlight: Int?
    package var breaker: BreakerState
}

extension Control {
    /// How long news take from this node to the others; `nil` where there are none.
    package var newsDelay: NewsDelay? { link?.newsDelay }

    package var backendRows: [BackendRow] {
        health.listing.map { status in
            var status = status
            let breaker = breakers.state(of: status.backend, at: loop.now)
            status.changes &+= breakers.changes(of: status.backend)
            let backend = find(status.backend)
            let service = node.services.first { $0.settings.name == status.backend.service }
            var everywhere: Int?
            if let service, let backend, service.countsCluster, clusterState == .reached {
                everywhere = service.state.inFlight(backend.index) + service.state.elsewhere(backend.index)
            }
            if let service, let backend, status.isAvailable { status.isAvailable = mayUse(service)(backend) }
            return BackendRow(
                status: status, inFlight: backend.flatMap { service?.state.inFlight($0.index) } ?? 0,
                clusterInFlight: everywhere, breaker: breaker)
        }
    }

    /// The backends of which it is said, one a service at the most.
    ///
    /// - Parameter url: of the backend, spelt as the configuration does or otherwise.
    package func say(_ word: OperatorWord.Word, url: String, service: String?, by: String) -> [BackendKey] {
        let said = OperatorWord(word, by: by, at: moment.wall)
        var keys: [BackendKey] = []
        for candidate in node.services where service == nil || candidate.settings.name == service {
            guard let meant = candidate.settings.instances.first(where: { $0.isMeant(by: url) }) else { continue }
            let key = BackendKey(service: candidate.settings.name, url: meant.url)
            if health.say(said, of: key, at: moment, into: &actions) { keys.append(key) }
        }
        perform()
        return keys
    }

    /// The services of the configuration in force, with the URLs of their backends.
    package var backendURLs: [(service: String, urls: [String])] {
        node.services.map { ($0.settings.name, $0.settings.instances.map(\.url)) }
    }

    func operatorWords(_ fields: [(field: String, value: [UInt8])]) {
        health.words(fields, at: moment, into: &actions)
        perform()
    }
}

extension Quorum {
    package init(_ configured: Configuration.Quorum) {
        self =
            switch configured {
            case .any: .any
            case .majority: .majority
            case .count(let count): .count(count)
            }
    }
}
