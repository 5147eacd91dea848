// What stands between this node and Redis, for the log and for those who ask.

import EventLoop
import Health
import Logging
import RateLimiting
import RedisClient

extension Control {
    func remedy(_ failure: RedisFailure) -> String {
        failure.remedy(user: generation.redis?.user, onCluster: generation.redis?.isCluster ?? false)
    }

    /// Whether Redis decides this node's limits.
    package var limitState: ClusterState {
        if lossRule == nil { .alone } else { limiterLost.isEmpty ? .reached : .lost }
    }

    /// Whether Redis serves this node in all that it is there for.
    package var isRedisUp: Bool { clusterState == .reached && limiterLost.isEmpty }

    // MARK: News

    func newsRefused(_ failure: RedisFailure) {
        failures.count(failure.cause)
        guard newsFailure != failure else { return }
        newsFailure = failure
        logger.warning(
            "news of the cluster are not heard: what the nodes share is read with each heartbeat instead",
            metadata: ["reason": "\(failure)", "remedy": "\(remedy(failure))"])
    }

    func newsHeard() {
        guard newsFailure != nil else { return }
        newsFailure = nil
        logger.notice("news of the cluster are heard again")
        // What was said since the last look.
        newsMissing()
    }

    func newsMissing() {
        health.reread(at: moment, into: &actions)
        perform()
        follower?.lookWithoutNews()
    }

    // MARK: Sentinels

    /// Both connections of the line hear of it.
    func movesUnheard(_ failure: RedisFailure?) {
        guard (failure == nil) != (movesFailure == nil) else { return }
        movesFailure = failure
        guard let failure else {
            logger.notice("sentinels are heard again")
            return
        }
        failures.count(failure.cause)
        logger.warning(
            "sentinels are not heard: another primary is found when the one before fails or says READONLY",
            metadata: ["reason": "\(failure)", "remedy": "\(remedy(failure))"])
    }

    // MARK: Keys

    /// Workers find the same key at the same time: one line says it.
    func limitKeyFailed(_ told: KeyFailure) {
        guard keysTold.mayTell(told.kind, again: told.kind.pause, at: loop.now) else { return }
        let keys = told.former + [told.key]
        let remedy =
            told.failure.cause == .wrongType
            ? "see what it is by redis-cli TYPE '\(keys[0])', and make room by redis-cli DEL '\(keys[0])'"
            : remedy(told.failure)
        var metadata: Logger.Metadata = ["reason": "\(told.failure)", "remedy": "\(remedy)"]
        // What a user may not copy it may copy for nobody: no single key is to blame.
        if told.consequence == .notCarried { metadata["policy"] = "\(told.policy)" }
        if told.consequence != .notCarried || told.failure.cause != .permission {
            metadata["key"] = "\(keys.joined(separator: " "))"
        }
        logger.error("\(told.consequence.sentence)", metadata: metadata)
    }
}

extension KeyFailure.Consequence {
    fileprivate var sentence: String {
        switch self {
        case .undecided: "a limit's key cannot be used: the loss rule decides for whom it counts"
        case .notCharged: "what was admitted without Redis is not charged: its client can get as much once more"
        case .notGivenBack: "what a refused request took is not given back: it counts until it leaves the window"
        case .notRenewed: "the lease of a request that runs cannot be renewed: when it has run out, others get its slot"
        case .notCarried:
            "windows of a limit that has changed are not taken along: who has used up the former one begins anew"
        }
    }
}
