// This node's process, for operators: which one it is, how it came to be, and its replacement by another.

import Gateway
import LinuxIO
import Membership
import Supervision

enum AdminLifecycle {
    /// `nil` for what is somebody else's to answer.
    static func answer(_ request: SmallRequest, _ control: Control, _ lifecycle: Lifecycle) -> SmallAnswer? {
        switch (request.method, request.path) {
        case ("GET", "/api/node"), ("HEAD", "/api/node"): return AdminServer.encode(NodeProcess(control, lifecycle))
        case ("POST", "/api/upgrade"):
            guard lifecycle.askForUpgrade() else {
                return .problem(409, lifecycle.isEnding ? "This node ends" : "An upgrade is under way")
            }
            guard AdminWords.query(request.query)["wait"] == "true" else {
                return AdminServer.encode(NodeProcess(control, lifecycle), status: 202)
            }
            // Over the connection that has asked: the new process may have another admin listener, or none.
            return .later { [unowned control] done in
                control.whenUpgraded { done(AdminServer.encode(NodeProcess(control, lifecycle))) }
            }
        case (_, "/api/upgrade"): return .problem(405, "POST starts a new process in the place of this one")
        default: return nil
        }
    }
}

/// `GET /api/node` as it is written here and read by `sluice upgrade`. The names are stable.
package struct NodeProcess: Codable, Sendable {
    package var node: String
    /// Another one with each process.
    package var boot: String
    package var pid: Int32
    package var version: String
    package var startedAt: String
    package var state: String
    package var supervised: Bool
    package var crashes: Int
    package var lastCrash: String?
    package var upgrade: Upgrade
    /// The process that has taken this one's place.
    package var successor: Int32?

    package struct Upgrade: Codable, Sendable {
        package var state: String
        package var reason: String?
    }

    init(_ control: Control, _ lifecycle: Lifecycle) {
        node = control.nodeID.text
        boot = "\(control.boot)"
        pid = Processes.ownID
        version = lifecycle.version
        startedAt = SystemClock.timestamp(microseconds: lifecycle.startedAt)
        state = control.readiness.rawValue
        supervised = lifecycle.isSupervised
        crashes = lifecycle.crashes
        lastCrash = lifecycle.lastCrash
        successor = lifecycle.successor
        upgrade =
            switch lifecycle.upgrade {
            case .none: Upgrade(state: "none")
            case .starting: Upgrade(state: "starting")
            case .failed(let reason): Upgrade(state: "failed", reason: reason)
            }
    }
}
