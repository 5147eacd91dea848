// The life of a `sluice run`: the parent that supervises, and what a node does at signals and at its parent's word.

import ArgumentParser
import Configuration
import Gateway
import LinuxIO
import Logging
import Membership
import Primitives
import Supervision

extension StartedAs {
    /// As this process was started.
    static var thisProcess: StartedAs {
        StartedAs(
            program: CommandLine.arguments.first ?? "sluice", arguments: CommandLine.arguments,
            environment: Processes.environment)
    }
}

extension Run {
    /// Whether this process is to be the parent of one that serves.
    func isSupervisor(_ parent: ParentLink?) -> Bool {
        parent == nil
            && (supervise ?? isSupervisedByDefault(id: Processes.ownID, environment: Processes.environment))
    }

    /// Does not return before the node has ended.
    func superviseNode() throws {
        Signals.block(Supervisor.signalNumbers)
        let started = StartedAs.thisProcess
        let events = EventLog.standardError
        if started.environment[HandoverKeys.supervisor] == nil {
            events.follow(try options.load(say: events.write).0.gateway)
        } else if let manner = Manner(started.environment[HandoverKeys.manner] ?? "") {
            // In the place of an older binary: its node serves, whatever the file says by now.
            events.follow(manner)
        }
        let logger = LineLog.logger()
        events.listen { message, details in logger.warning("\(message)", metadata: Self.metadata(details)) }
        let voice = Supervisor.Voice(
            log: { level, message, details in
                let metadata = Self.metadata(details)
                switch level {
                case .notice: logger.notice("\(message)", metadata: metadata)
                case .warning: logger.warning("\(message)", metadata: metadata)
                case .error: logger.error("\(message)", metadata: metadata)
                case .critical: logger.critical("\(message)", metadata: metadata)
                }
            }, follow: events.follow, flush: events.flush)
        let supervisor: Supervisor
        do {
            supervisor = try Supervisor(started, voice)
        } catch {
            events.write("sluice: \(error)")
            throw ExitCode(1)
        }
        throw ExitCode(supervisor.run())
    }

    private static func metadata(_ details: [String: String]) -> Logger.Metadata {
        Logger.Metadata(uniqueKeysWithValues: details.map { ($0, "\($1)") })
    }
}

/// A node that runs, and those who may end or replace it.
struct RunningNode: Sendable {
    let node: Node
    let parent: ParentLink?
    let lifecycle: Lifecycle
    let manager: ServiceManager
    let logger: Logger
    /// Where this process starts the next itself.
    private let successor = Successor()

    init(_ node: Node, _ parent: ParentLink?, _ lifecycle: Lifecycle) {
        self.node = node
        self.parent = parent
        self.lifecycle = lifecycle
        logger = node.logger
        // Under a supervisor that one speaks; the successor of an unsupervised node is the service itself.
        manager = ServiceManager(environment: parent?.isSupervised == true ? [:] : Processes.environment)
    }

    /// The node serves. Tells those who wait for that, and listens to what they want.
    func begin() {
        if isSuccessor { node.changeHands() }
        // A wish that comes before the word that this process serves would be lost.
        report()
        lifecycle.whenUpgradeIsWanted { wantsUpgrade() }
        node.endFormerListeners()
        node.whenReloaded { [manager] in
            report()
            parent?.tell(.reloaded)
            if !lifecycle.isEnding { manager.ready(status: "serving") }
        }
        manager.ready(status: "serving")
        if let parent, parent.isSupervised { _ = OSThread(name: "parent") { listen(parent) } }
        _ = OSThread(name: "signals") { obeySignals() }
    }

    /// Tells the parent what it needs to know of the configuration in force, and where the node listens now.
    private func report() {
        guard let parent else { return }
        parent.tell(.manner(Manner(node.gateway)))
        parent.leave(node.usefulText)
        parent.tellReady(node.sockets)
    }

    /// Whether another process of this node serves when this one begins.
    private var isSuccessor: Bool { parent != nil && Processes.environment[HandoverKeys.sockets]?.isEmpty == false }

    private func obeySignals() {
        var isStopping = false
        while true {
            let signal = Signals.wait(NodeSignals.all)
            if signal == Signals.upgrade {
                guard !lifecycle.askForUpgrade() else { continue }
                let reason = lifecycle.isEnding ? "this node ends" : "an upgrade is under way"
                logger.warning("no new process is started", metadata: ["reason": "\(reason)"])
            } else if signal == Signals.hangUp {
                if !isStopping { manager.reloading(at: SystemClock.monotonic()) }
                node.reload(.signal)
            } else if signal == Signals.reopen {
                node.reopenLogs()
            } else if isStopping {
                // A second one waits for nobody.
                node.stop()
            } else {
                isStopping = true
                end()
                logger.notice("stopping", metadata: ["signal": "\(Signals.name(signal))"])
                manager.stopping()
                node.drain()
            }
        }
    }

    /// The node ends, and no process of it is left behind.
    private func end() {
        lifecycle.ends()
        successor.end()
    }

    private func listen(_ parent: ParentLink) {
        parent.listen { word in
            switch word {
            case .upgrading:
                lifecycle.upgradeBegins()
                node.changeHands()
            case .handOver(let process): handOver(to: process)
            case .upgradeFailed(let reason): upgradeFailed(reason)
            case .ready, .failed, .wantsUpgrade, .reloaded, .manner, .configuration: break
            }
        }
        end()
        logger.warning("the supervisor is gone: this process ends too")
        node.drain()
    }

    private func handOver(to process: Int32?) {
        lifecycle.succeeded(by: process)
        node.handOver()
    }

    private func upgradeFailed(_ reason: String) {
        lifecycle.upgradeFailed(reason)
        node.tellUpgraded()
    }

    private func wantsUpgrade() {
        if let parent, parent.isSupervised { return parent.tell(.wantsUpgrade) }
        _ = OSThread(name: "upgrade") { replaceThis() }
    }

    /// Without a supervisor the node starts its successor itself, and leaves when that serves.
    private func replaceThis() {
        do throws(SuccessionError) {
            guard Processes.ownID != 1 else {
                throw SuccessionError("the first process of a container cannot be replaced: run with --supervise")
            }
            let started = StartedAs.thisProcess
            node.changeHands()
            logger.notice("starting a new process", metadata: ["program": "\(started.program)"])
            let id = try successor.start(started, sockets: node.sockets)
            logger.notice("a new process serves", metadata: ["process": "\(id)"])
            manager.main(is: id)
            handOver(to: id)
        } catch {
            guard !lifecycle.isEnding else {
                return logger.notice("the new process was ended: this node ends")
            }
            logger.error("the upgrade has failed: this process goes on", metadata: ["reason": "\(error)"])
            upgradeFailed(error.description)
        }
    }
}
