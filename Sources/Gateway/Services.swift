// What the workers of a node share of a service: immutable facts, and atomics.

import Balancing
package import Configuration
import HTTP1
package import Health
import Primitives
import Synchronization

/// One backend of a service.
package final class Backend: Sendable {
    /// Its place in the service's list of instances.
    package let index: Int
    /// Its name among the nodes, and over changes of the configuration.
    package let key: BackendKey
    package var url: String { key.url }
    package let host: String
    package let port: UInt16
    /// The value of `Host` for it.
    let authority: String
    /// The end of every request head sent to it: the fields that name the backend, and the empty line.
    let headTail: [UInt8]
    /// The same with a Host field, for requests that came without one.
    let headTailWithHost: [UInt8]
    /// What stands before the forwarded path.
    let basePath: [UInt8]

    /// Failures of real traffic in a row, over all workers.
    let consecutiveFailures = Atomic<Int>(0)
    /// Failures that were told to the control loop since it last thought anew.
    let toldFailures = Atomic<Int>(0)
    /// All requests that ended well, and all that failed by its fault; counted only where their share decides.
    let answers = Atomic<UInt64>(0)
    let failures = Atomic<UInt64>(0)
    /// Whether the resolver is at work on `host`.
    let isResolving = Atomic<Bool>(false)
    /// Whether the log has been told that `host` does not resolve.
    let isNameless = Atomic<Bool>(false)
    package let traffic: BackendTraffic
    /// The addresses of `host`, in the order in which they are tried. Read when a connection is made.
    private let addressList = Mutex<[IPAddress]>([])

    init(
        _ instance: Configuration.Backend, index: Int, service: Configuration.Service, traffic: TrafficRegistry
    ) {
        self.traffic = traffic.backend(service.name, instance.url)
        self.index = index
        key = BackendKey(service: service.name, url: instance.url)
        host = instance.host.plain
        port = instance.port
        basePath = Array(instance.basePath.utf8)
        authority = instance.authority
        let tail = "X-Origin-Host: \(authority)\r\n"
        headTailWithHost = Array((tail + "Host: \(authority)\r\n\r\n").utf8)
        headTail =
            switch service.hostHeader {
            case .client: Array((tail + "\r\n").utf8)
            case .backend: headTailWithHost
            }
    }

    var addresses: [IPAddress] { addressList.withLock { $0 } }

    /// Returns whether the addresses are others than before.
    func replaceAddresses(_ addresses: [IPAddress]) -> Bool {
        addressList.withLock { list in
            if list == addresses { return false }
            list = addresses
            return true
        }
    }
}

/// One service: what a request needs to know of it.
package final class Service: Sendable {
    package let settings: Configuration.Service
    package let backends: [Backend]
    let nameBytes: [UInt8]
    let prefix: [UInt8]
    let upgrades: Upgrades
    /// `nil`: nothing is changed.
    let transforms: ServiceTransforms?
    let state: BalancerState
    private let hashSource: HashSource
    /// Whether the backend's name replaces the client's Host.
    let replacesHost: Bool
    /// The methods that it takes; empty: all.
    private let methods: [[UInt8]]
    /// The Allow line with them, where they are listed.
    let allowLine: [UInt8]
    /// 0: no limit.
    let bodyBytesMax: Int
    /// Requests of this node that went to another backend, and those for which the budget was used up.
    let retries = Atomic<UInt64>(0)
    let retriesDenied = Atomic<UInt64>(0)
    /// Whether the share of failures decides, so that answers are counted.
    let countsAnswers: Bool
    /// Failures in a row beyond which more are no news to the control loop.
    let toldFailuresMax: Int
    package let traffic: ServiceTraffic
    package var name: String { settings.name }
    package var isUnderMaintenance: Bool { settings.transforms?.maintenance != nil }
    package var path: String { settings.path }

    /// - Parameter before: the service of that name until now, of which goes on what stays the same.
    init(_ settings: Configuration.Service, traffic: TrafficRegistry, before: Service? = nil) {
        self.settings = settings
        self.traffic = traffic.service(settings.name)
        backends = settings.instances.enumerated().map { position, instance in
            let made = Backend(instance, index: position, service: settings, traffic: traffic)
            guard let old = before?.backends.first(where: { $0.url == made.url }) else { return made }
            if old.index == position, before?.settings.hostHeader == settings.hostHeader { return old }
            _ = made.replaceAddresses(old.addresses)
            return made
        }
        hashSource = HashSource(settings)
        replacesHost = settings.hostHeader == .backend
        nameBytes = Array(settings.name.utf8)
        prefix = Self.prefix(of: settings.path)
        upgrades = Upgrades(settings.upgrades)
        transforms = ServiceTransforms(settings.transforms)
        methods = settings.methods.map { Array($0.utf8) }
        allowLine = methods.isEmpty ? [] : Array("Allow: \(settings.methods.joined(separator: ", "))\r\n".utf8)
        state = Self.state(of: backends, before)
        bodyBytesMax = settings.limits.bodyBytes?.bytes ?? 0
        countsAnswers = settings.health.failureShare != nil
        toldFailuresMax = max(settings.health.failures, settings.circuitBreaker.failures)
    }

    /// What is in flight at a backend stays so, whatever others come and go.
    private static func state(of backends: [Backend], _ before: Service?) -> BalancerState {
        guard let before else { return BalancerState(backendCount: backends.count) }
        if before.backends.map(\.url) == backends.map(\.url) { return before.state }
        let places = Dictionary(before.backends.map { ($0.url, $0.index) }) { first, _ in first }
        return BalancerState(after: before.state, former: backends.map { places[$0.url] })
    }

    /// A path as routes have it: without the slash at its end.
    static func prefix(of path: String) -> [UInt8] {
        var prefix = Array(path.utf8)
        while prefix.last == UInt8(ascii: "/") { prefix.removeLast() }
        return prefix
    }

    /// What consistent hashing goes by.
    func hash(_ head: borrowing RequestHead, _ bytes: Span<UInt8>, client: IPAddress, user: UInt64?) -> UInt64 {
        hashSource.hash(head, bytes, client: client, user: user)
    }

    func takes(method: Span<UInt8>) -> Bool {
        if methods.isEmpty { return true }
        return methods.contains { name in
            guard name.count == method.count else { return false }
            for i in name.indices where name[i] != method[i] { return false }
            return true
        }
    }

    /// The order of those backends that `isAvailable` lets take part.
    func balancer(
        _ isAvailable: (Backend) -> Bool, share: (Backend) -> Int = { _ in BalancerSnapshot.wholeShare },
        trials: [Int] = []
    ) -> BalancerSnapshot {
        let strategy: BalancingStrategy =
            switch settings.strategy {
            case .roundRobin: .roundRobin
            case .weightedRoundRobin: .weightedRoundRobin
            case .leastConnections: .leastConnections
            case .consistentHash: .consistentHash
            }
        return BalancerSnapshot(
            strategy: strategy, backends: settings.instances.map { BalancedBackend(url: $0.url, weight: $0.weight) },
            state: state, isAvailable: { isAvailable(backends[$0]) }, share: { share(backends[$0]) }, trials: trials)
    }
}
