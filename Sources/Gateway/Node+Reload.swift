// How a node gets another configuration while it runs. All that can fail, or take its time, is done here on a thread of
// its own: reading, checking, resolving names, opening sockets and files. What is handed over cannot fail any more.

import Configuration
import EventLoop
import LinuxIO
import Logging
import Primitives
import Supervision
import Synchronization

extension Node {
    /// Asks for a reload. What becomes of it shows on the board and in the log.
    @discardableResult
    package func reload(_ reason: ReloadReason) -> Int { board.ask(reason) }

    /// Called when a reload has ended, one way or the other.
    package func whenReloaded(_ body: @escaping @Sendable () -> Void) { whenReloaded.set(body) }

    /// Answers questions for reloads, one after the other.
    func startReloading(from text: String) {
        guard let source else { return }
        // The thread ends with the process; it holds nothing that needs an orderly end.
        _ = OSThread(name: "reload") { [self] in
            let followed = current.withLock { $0.followed }
            board.update { $0.settings = (try? settings(source, own: text, followed)) ?? [] }
            while true {
                let (ticket, jobs) = board.next()
                for job in jobs { perform(job, source, ticket) }
                board.update { $0.answered = ticket }
                controlMailbox.post(.reloadAnswered)
                whenReloaded.body?()
            }
        }
    }

    private func perform(_ job: ConfigurationJob, _ source: ConfigurationSource, _ ticket: Int) {
        switch job {
        case .file(let reason): note(reload(source, reason, current.withLock { $0.followed }), reason, ticket)
        case .adopt(let followed):
            let errors = reload(source, .cluster, followed)
            note(errors, .cluster, ticket)
            controlMailbox.post(.configurationAdopted(version: followed.version, errors: errors))
        case .check(let version, let text):
            var errors: [String]?
            do throws(ConfigurationErrors) {
                _ = try source.parse(
                    text, named: "version \(version)", over: try source.read(), examine: Self.problems)
            } catch {
                errors = error.description.split(separator: "\n").map(String.init)
            }
            controlMailbox.post(.configurationChecked(version: version, errors: errors))
        }
    }

    private func note(_ errors: [String]?, _ reason: ReloadReason, _ ticket: Int) {
        board.update { status in
            guard let errors else {
                status.reloads += 1
                status.lastError = nil
                return
            }
            status.failures += 1
            status.lastError = ConfigurationStatus.Failure(
                at: SystemClock.wallMicroseconds(), reason: reason, errors: errors, ticket: ticket)
        }
    }

    /// Returns what is wrong; the configuration in force then stays as it is.
    private func reload(_ source: ConfigurationSource, _ reason: ReloadReason, _ followed: Followed?) -> [String]? {
        do throws(ConfigurationErrors) {
            let own = try source.read()
            let mine = try source.parse(own, examine: { $0.config.from == .redis ? [] : Self.problems($0) })
            // Who no longer follows goes by its own file again, and forgets what it has followed.
            guard mine.config.from == .redis, let followed = followed ?? inForce(mine) else {
                let errors = adopt(mine, text: own, settings: try source.settings(of: own), nil, reason)
                keep(own, errors)
                return errors
            }
            let errors = adopt(
                try source.parse(followed.text, named: followed.name, over: own, examine: Self.problems),
                text: followed.text, settings: try settings(source, own: own, followed), followed, reason)
            keep(own, errors)
            return errors
        } catch {
            let lines = error.description.split(separator: "\n").map(String.init)
            for line in lines { logger.error("\(line)") }
            return refused(lines, reason)
        }
    }

    private func keep(_ own: String, _ errors: [String]?) {
        if errors == nil { fileText.withLock { $0 = own } }
    }

    /// The cluster's version in force, for a node that begins to follow.
    private func inForce(_ own: Configuration) -> Followed? {
        guard let url = own.rateLimit?.redisURL else { return nil }
        switch FollowedReader.read(url, basis.resolver) {
        case .version(let followed): return followed
        case .nothing: return nil
        case .unknown(let reason):
            logger.warning(
                "the cluster's configuration cannot be read in time: this node goes by its own file",
                metadata: ["reason": "\(reason)"])
            return nil
        }
    }

    private func settings(
        _ source: ConfigurationSource, own: String, _ followed: Followed?
    ) throws(ConfigurationErrors) -> [Setting] {
        guard let followed else { return try source.settings(of: own) }
        return try source.settings(of: followed.text, named: followed.name, over: own)
    }

    private func refused(_ lines: [String], _ reason: ReloadReason) -> [String] {
        logger.error(
            "reload refused: the configuration in force stays",
            metadata: ["reason": "\(reason.rawValue)", "errors": "\(lines.count)"])
        return lines
    }

    /// Puts a configuration that is right in force. Returns why it could not be.
    func adopt(
        _ configuration: Configuration, text: String, settings: [Setting], _ followed: Followed?, _ reason: ReloadReason
    ) -> [String]? {
        let before = current.withLock { $0 }
        let succession: (generation: Generation, sockets: [[ListeningSocket]]?, admin: Succession.AdminSuccession)
        var made: Generation?
        do throws(NodeStartError) {
            let generation = try Generation(configuration, basis, text: text, followed: followed, before: before)
            made = generation
            resolveBackends(of: generation, logger)
            let (old, new) = (before.configuration.gateway, configuration.gateway)
            var sockets: [[ListeningSocket]]?
            if old.port != new.port {
                sockets = try Self.listen(
                    new.port, workers: basis.workerCount, key: "gateway.port", own: listeners.withLock { $0 },
                    probeFirst: !Self.isOwn(new.port, old))
            }
            succession = (generation, sockets, try adminSuccession(old, new))
        } catch {
            logger.error("\(error)")
            if let made { abandon(made, for: before) }
            return refused([error.description], reason)
        }
        let arrived = Waiter()
        let outcome = Mutex<String?>(nil)
        controlMailbox.post(
            .reload(
                Succession(succession.generation, sockets: succession.sockets, admin: succession.admin) { problem in
                    outcome.withLock { $0 = problem }
                    arrived.signal()
                }))
        arrived.wait()
        if let problem = outcome.withLock({ $0 }) {
            abandon(succession.generation, for: before)
            logger.error("\(problem)")
            return refused([problem], reason)
        }
        current.withLock { $0 = succession.generation }
        // Whom the workers have asked already finds it in its mailbox.
        startCredentials(of: succession.generation)
        _ = startSpans(of: succession.generation)
        if let sockets = succession.sockets { listeners.withLock { $0 = sockets } }
        switch succession.admin {
        case .unchanged: break
        case .off: admin.withLock { $0 = nil }
        case .socket(let socket): admin.withLock { $0 = socket }
        }
        told(before.configuration, configuration, text, settings, reason)
        return nil
    }

    /// Closes what only a configuration has opened that does not come into force.
    private func abandon(_ generation: Generation, for before: Generation) {
        let logs = generation.logs(notOf: before)
        logs.access?.close()
        logs.decisions?.close()
    }

    private func adminSuccession(
        _ old: Configuration.Gateway, _ new: Configuration.Gateway
    ) throws(NodeStartError) -> Succession.AdminSuccession {
        guard old.admin != new.admin else { return .unchanged }
        guard let admin = new.admin else { return .off }
        return .socket(
            try Self.listen(admin, workers: 1, key: "gateway.admin", probeFirst: !Self.isOwn(admin, old))[0][0])
    }

    /// Whether this node itself listens there until now, for clients or for operators: the two may change places.
    private static func isOwn(_ address: ListenAddress, _ old: Configuration.Gateway) -> Bool {
        old.port.overlaps(address) || old.admin?.overlaps(address) ?? false
    }

    /// Says what has changed, and what has not yet.
    private func told(
        _ old: Configuration, _ new: Configuration, _ text: String, _ settings: [Setting], _ reason: ReloadReason
    ) {
        for warning in Self.warnings(new) where !Self.warnings(old).contains(warning) { logger.warning("\(warning)") }
        let workers = new.gateway.workers
        let needRestart = workers == basisConfiguration.gateway.workers ? [] : ["gateway.workers"]
        let hash = Self.hash(of: text)
        board.update { status in
            status.version += 1
            status.loadedAt = SystemClock.wallMicroseconds()
            status.hash = hash
            status.reason = reason
            status.needRestart = needRestart
            status.settings = settings
        }
        logger.notice(
            "configuration reloaded",
            metadata: [
                "reason": "\(reason.rawValue)", "version": "\(board.status.version)", "hash": "\(hash)",
                "services": "\(new.services.count)",
            ])
        for key in needRestart { logger.warning("\(key) has changed: it counts after a restart") }
    }

    static func hash(of text: String) -> String {
        let digits = String(stableHash(text), radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }
}
