// A node's line to the process that has started it: its supervisor, which stays, or its predecessor, which goes.

import LinuxIO

/// What processes of a node tell each other. One message a word, with a reason behind it where there is one.
package enum Word: Equatable, Sendable {
    // From a node to whoever has started it.
    /// It serves. The sockets it listens on come with it, in the order of their roles.
    case ready([SocketRole])
    case failed(String)
    /// Somebody has asked for a new process in its place.
    case wantsUpgrade
    /// It has taken in its configuration again.
    case reloaded
    /// What its parent should know of the configuration in force, before `ready`.
    case manner(Manner)
    /// The text of that configuration's file comes with it.
    case configuration
    // From a supervisor to its node.
    /// A new process is being started.
    case upgrading
    /// Another process serves in its place; its number, where the supervisor tells it.
    case handOver(Int32?)
    case upgradeFailed(String)

    package var text: String {
        switch self {
        case .ready(let roles): "ready " + roles.map(\.rawValue).joined(separator: ",")
        case .failed(let reason): "failed \(reason)"
        case .wantsUpgrade: "upgrade"
        case .reloaded: "reloaded"
        case .manner(let manner): "manner \(manner.text)"
        case .configuration: "configuration"
        case .upgrading: "upgrading"
        case .handOver(let process): process.map { "handover \($0)" } ?? "handover"
        case .upgradeFailed(let reason): "upgradefailed \(reason)"
        }
    }

    package init?(_ text: String) {
        let parts = text.split(separator: " ", maxSplits: 1)
        let rest = parts.count == 2 ? String(parts[1]) : ""
        switch parts.first {
        case "ready": self = .ready(rest.split(separator: ",").compactMap { SocketRole(rawValue: String($0)) })
        case "failed": self = .failed(rest)
        case "upgrade": self = .wantsUpgrade
        case "reloaded": self = .reloaded
        case "manner":
            guard let manner = Manner(rest) else { return nil }
            self = .manner(manner)
        case "configuration": self = .configuration
        case "upgrading": self = .upgrading
        case "handover": self = .handOver(Int32(rest))
        case "upgradefailed": self = .upgradeFailed(rest)
        default: return nil
        }
    }
}

package final class ParentLink: Sendable {
    /// Whether the other end is a supervisor.
    package let isSupervised: Bool
    private let channel: Channel

    /// The line that the environment names; `nil` for a process that a user has started.
    package init?(environment: [String: String]) {
        let parts = (environment[HandoverKeys.parent] ?? "").split(separator: ":")
        guard parts.count == 2, let raw = Int32(parts[0]), raw > 2 else { return nil }
        isSupervised = parts[1] == "supervisor"
        channel = Channel(adopting: raw)
    }

    package static func variable(_ raw: Int32, isSupervisor: Bool) -> String {
        "\(raw):\(isSupervisor ? "supervisor" : "predecessor")"
    }

    package func tellReady(_ sockets: [(role: SocketRole, raw: Int32)]) {
        channel.send(Word.ready(sockets.map(\.role)).text, sockets.map(\.raw))
    }

    package func tell(_ word: Word) { channel.send(word.text) }

    /// Leaves a configuration with a supervisor, for the next process.
    package func leave(_ text: String) {
        guard isSupervised, let file = try? MemoryFile.make(text) else { return }
        channel.send(Word.configuration.text, [file.raw])
    }

    /// Takes what the other end says until it is gone. Blocks.
    package func listen(_ body: (Word) -> Void) {
        while let (text, descriptors) = channel.receive() {
            for raw in descriptors { Descriptor(adopting: raw).closeEarly() }
            if let word = Word(text) { body(word) }
        }
    }
}
