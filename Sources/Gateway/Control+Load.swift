// Cluster-wide least connections: what this node has in flight goes out many times a second, and what the others have
// stands beside it in the balancers' counters.

import Balancing
import Configuration
import EventLoop
import Health
import Membership
import Primitives

extension Service {
    /// Whether the requests of all nodes count.
    var countsCluster: Bool {
        settings.strategy == .leastConnections && settings.leastConnections.scope == .cluster
    }
}

/// What is to be told of this node's load, and when.
struct LoadTeller {
    private var sequence: UInt64 = 0
    private var last: [String: [String: Int]] = [:]
    private var lastAt = MonotonicTime(nanoseconds: .min)

    /// `nil` while there is nothing new to tell.
    mutating func next(_ services: [Service], _ id: (node: NodeID, boot: BootID), at now: MonotonicTime) -> LoadNews? {
        var inFlight: [String: [String: Int]] = [:]
        for service in services where service.countsCluster {
            for backend in service.backends {
                let count = service.state.inFlight(backend.index)
                if count > 0 { inFlight[service.settings.name, default: [:]][backend.url] = count }
            }
        }
        let isIdle = inFlight.isEmpty && last.isEmpty
        guard inFlight != last || !isIdle && now - lastAt >= LoadNews.idleInterval else { return nil }
        last = inFlight
        lastAt = now
        sequence &+= 1
        return LoadNews(node: id.node, boot: id.boot, sequence: sequence, inFlight: inFlight)
    }
}

extension Control {
    func tellLoad() {
        guard let link else { return }
        loadTimer.schedule(after: LoadNews.interval)
        if loads.expire(at: loop.now) { applyLoads() }
        guard clusterState == .reached, let news = loadTeller.next(node.services, (nodeID, boot), at: loop.now) else {
            return
        }
        link.publish(news)
    }

    func loadTold(_ news: LoadNews) {
        if loads.heard(news, at: loop.now) { applyLoads() }
    }

    func loadsLost() {
        loads.forgetAll()
        applyLoads()
    }

    private func applyLoads() {
        for service in node.services where service.countsCluster {
            for backend in service.backends {
                let key = BackendKey(service: service.settings.name, url: backend.url)
                service.state.setElsewhere(loads.total(of: key), of: backend.index)
            }
        }
    }
}
