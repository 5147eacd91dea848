// A worker's part of one service under one configuration. A request holds the lane that it began in, so a reload takes
// nothing away from it; what does not change goes on in the next lane.

import Balancing
import Configuration
import HTTP1
import Primitives

final class Lane {
    let node: NodeContext
    let service: Service
    /// What requests ask for several times is the lane's own, one step away.
    let state: BalancerState
    let traffic: ServiceTraffic
    let via: [UInt8]
    let transforms: ServiceTransforms?
    let tellsLimits: Bool
    /// What no trailer of a request, and none of an answer, may say: what the configuration sets or removes in the head.
    let guarded: GuardedNames
    let guardedOfAnswers: GuardedNames
    /// By the places of the backends.
    let pools: [BackendPool]
    /// The order of the backends that may be used. Until the next configuration it follows the view of the cluster.
    var balancer: BalancerSnapshot
    var retryBudget: RetryBudget
    var trials = TrialAsks()

    /// - Parameter before: the worker's lane of that service until now.
    init(_ service: Service, of node: NodeContext, balancer: BalancerSnapshot, before: Lane?, worker: Worker) {
        self.node = node
        self.service = service
        state = service.state
        traffic = service.traffic
        via = node.via
        transforms = service.transforms
        tellsLimits = node.tellsLimits
        let own = [node.authentication?.guarded, service.transforms?.requestGuarded].compactMap { $0 }
        guarded = GuardedNames(own + (node.marking?.guarded ?? []))
        let answered = [service.transforms?.responseGuarded].compactMap { $0 }
        guardedOfAnswers = GuardedNames(answered + (node.marking?.guardedOfAnswers ?? []))
        self.balancer = balancer
        let (settings, old) = (service.settings, before?.service.settings)
        let keepsPools = settings.timeouts == old?.timeouts && settings.pool == old?.pool
        pools = service.backends.map { backend in
            let pool = keepsPools ? before?.pools.first { $0.backend === backend } : nil
            return pool ?? BackendPool(backend, service: service, worker: worker)
        }
        if let before, settings.retries == old?.retries {
            retryBudget = before.retryBudget
        } else {
            // The share of a worker is that of its own requests; the minimum is shared out.
            let minimum = (settings.retries.minimum + node.workerCount - 1) / max(1, node.workerCount)
            retryBudget = RetryBudget(percent: settings.retries.budgetPercent, minimum: minimum)
        }
    }

    @inline(never)
    func count(_ client: ClientConnection, worker: Int, at now: MonotonicTime) {
        traffic.count(client, worker: worker, at: now)
    }

    /// Those connections that nobody uses end now, the others with their exchange.
    func retirePools(keeping next: Lane?) {
        for pool in pools where !(next?.pools.contains { $0 === pool } ?? false) { pool.retire() }
    }
}
