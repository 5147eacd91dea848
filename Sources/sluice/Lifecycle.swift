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
        let logger: Logger
        if started.environment[HandoverKeys.supervisor] == nil {
            logger = LineLog.logger(try options.load().0.gateway)
        } else if let (configuration, _) = try? options.load() {
            // In the place of an older binary: its node serves, whatever the file says by now.
            logger = LineLog.logger(configuration.gateway)
        } else {
            logger = Logger(label: "sluice")
        }
        let supervisor: Supervisor
        do {
            supervisor = try Supervisor(started) { level, message, details in
                let metadata = Logger.Metadata(uniqueKeysWithValues: details.map { ($0, "\($1)") })
                switch level {
                case .notice: logger.notice("\(message)", metadata: metadata)
                case .warning: logger.warning("\(message)", metadata: metadata)
                case .error: logger.error("\(message)", metadata: metadata)
                case .critical: logger.critical("\(message)", metadata: metadata)
                }
            }
        } catch {
            printError("sluice: \(error)")
            throw ExitCode(1)
        }
        throw ExitCode(supervisor.run())
    }
}

/// A node that runs, and those who may end or replace it.
struct RunningNode: Sendable {
    let node: Node
    let parent: ParentLink?
    let lifecycle: Lifecycle
    let manager: ServiceManager
    let logger: Logger

    private let successor = Successor()

    init(_ node: Node, _ parent: ParentLink?, _ lifecycle: Lifecycle, _ logger: Logger) {
        self.node = node
        self.parent = parent
        self.lifecycle = lifecycle
        self.logger = logger
        // Under a supervisor that one speaks; the successor of an unsupervised node is the service itself.
        manager = ServiceManager(environment: parent?.isSupervised == true ? [:] : Processes.environment)
    }

    /// The node serves. Tells those who wait for that, and listens to what they want.
    func begin() {
        if isSuccessor { node.changeHands() }
        lifecycle.whenUpgradeIsWanted { wantsUpgrade() }
        parent?.tellReady(node.sockets)
        node.whenReloaded { [node, parent, manager] in
            // Its listeners may be others now.
            parent?.tellReady(node.sockets)
            parent?.tell(.reloaded)
            manager.ready(status: "serving")
        }
        manager.ready(status: "serving")
        if let parent, parent.isSupervised { _ = OSThread(name: "parent") { listen(parent) } }
        _ = OSThread(name: "signals") { obeySignals() }
    }

    /// Whether another process of this node serves when this one begins.
    private var isSuccessor: Bool { parent != nil && Processes.environment[HandoverKeys.sockets]?.isEmpty == false }

    private func obeySignals() {
        var isStopping = false
        while true {
            let signal = Signals.wait(NodeSignals.all)
            if signal == Signals.upgrade {
                lifecycle.askForUpgrade()
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
                successor.end()
                logger.notice("stopping", metadata: ["signal": "\(Signals.name(signal))"])
                manager.stopping()
                node.drain()
            }
        }
    }

    private func listen(_ parent: ParentLink) {
        parent.listen { word in
            switch word {
            case .upgrading:
                lifecycle.upgradeBegins()
                node.changeHands()
            case .handOver: node.handOver()
            case .upgradeFailed(let reason): lifecycle.upgradeFailed(reason)
            case .ready, .failed, .wantsUpgrade, .reloaded: break
            }
        }
        logger.warning("the supervisor is gone: this process ends too")
        node.drain()
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
            node.handOver()
        } catch {
            logger.error("the upgrade has failed: this process goes on", metadata: ["reason": "\(error)"])
            lifecycle.upgradeFailed(error.description)
        }
    }
}
