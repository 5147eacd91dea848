import Health
import LinuxIO
import RateLimiting

/// What others tell the control loop.
enum ControlMessage: Sendable {
    case trafficFailed(BackendKey, BackendFault)
    case trafficRecovered(BackendKey)
    /// A request of this worker would try a backend whose breaker is half-open.
    case trialWanted(BackendKey, worker: Int)
    case trialEnded(BackendKey, TrialOutcome, evidence: String)
    case limiter(worker: Int, LimiterEvent)
    /// A worker lacks places or descriptors for connections; `connectionsSuffice` follows when it has not for some
    /// seconds.
    case connectionsScarce(worker: Int, reason: String)
    case connectionsSuffice(worker: Int)
    /// Others may have what this worker lacks.
    case makeRoom(worker: Int, Scarcity)
    /// Something that operators should know of, at most once in some seconds.
    case note(String, [String: String])
    /// Something that has gone as it should.
    case news(String, [String: String])
    case drained(worker: Int)
    /// A worker has ended, and with it so many requests and tunnels that were under way.
    case stopped(cutOff: Int)
    /// All workers take connections. With the admin listener, where it has waited for that; and who waits to be told.
    case serving(admin: ListeningSocket?, then: @Sendable () -> Void)
    /// Another configuration is ready to take the place of the one in force.
    case reload(Succession)
    /// What the thread that reloads thinks of a version of the cluster's, and whether it is in force here.
    case configurationChecked(version: Int, errors: [String]?)
    case configurationAdopted(version: Int, errors: [String]?)
    /// Questions for reloads have been answered.
    case reloadAnswered
    /// This worker goes by it.
    case reloaded(worker: Int)
    /// The node is asked to end in an orderly way.
    case drain
    /// Another process of this node is there for a while, under the same name.
    case changeHands
    /// Another process has taken over the listening sockets and the name of this node.
    case handOver
    /// The wish for another process in this one's place has come to nothing.
    case upgradeAnswered
    /// The node is to end now; where it drains, as soon as what it has said is sent.
    case stop
}
