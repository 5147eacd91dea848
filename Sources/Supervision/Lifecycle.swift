import LinuxIO
import Synchronization

/// What a process of a node knows of its own life, for its operators: since when, after how many crashes, and what became
/// of the last wish to replace it.
package final class Lifecycle: Sendable {
    package enum Upgrade: Equatable, Sendable {
        case none
        case starting
        case failed(String)
    }

    package let version: String
    /// Microseconds since 1970.
    package let startedAt: Int64
    package let isSupervised: Bool
    /// Processes of this node that its supervisor has seen crash, this one's predecessors.
    package let crashes: Int
    package let lastCrash: String?
    /// Whether it listens where another process of this node does, or did, for its operators.
    package let inheritsAdmin: Bool

    private let state = Mutex((upgrade: Upgrade.none, successor: Int32?.none, isEnding: false))
    private let start = Callback()

    package init(version: String, parent: ParentLink?, environment: [String: String]) {
        self.version = version
        startedAt = SystemClock.wallMicroseconds()
        isSupervised = parent?.isSupervised ?? false
        crashes = Int(environment[HandoverKeys.crashes] ?? "") ?? 0
        lastCrash = environment[HandoverKeys.lastCrash]
        inheritsAdmin = SocketList(environment[HandoverKeys.sockets] ?? "").entries.contains { $0.role == .admin }
    }

    package var upgrade: Upgrade { state.withLock { $0.upgrade } }
    /// Whether the node is to end: none of its processes begins any more.
    package var isEnding: Bool { state.withLock { $0.isEnding } }

    /// The node has been told to end.
    package func ends() { state.withLock { $0.isEnding = true } }

    /// Who starts the new process.
    package func whenUpgradeIsWanted(_ body: @escaping @Sendable () -> Void) { start.set(body) }

    /// Asks for a new process in this one's place; `false` where that is under way, or this one has only begun, or ends.
    @discardableResult
    package func askForUpgrade() -> Bool {
        guard let start = start.body else { return false }
        let begins = state.withLock { state in
            if state.isEnding || state.upgrade == .starting { return false }
            state.upgrade = .starting
            return true
        }
        if begins { start() }
        return begins
    }

    /// A new process is being started, whoever has asked for it.
    package func upgradeBegins() { state.withLock { $0.upgrade = .starting } }

    /// Another process serves in this one's place.
    package func succeeded(by process: Int32?) { state.withLock { $0.successor = process } }

    /// That process, where it is known.
    package var successor: Int32? { state.withLock { $0.successor } }

    package func upgradeFailed(_ reason: String) { state.withLock { $0.upgrade = .failed(reason) } }
}
