// `sluice config push`, `rollback` and `history`: one configuration for all nodes that follow.

import Admin
import ArgumentParser
import FoundationEssentials
import LinuxIO
import Primitives

private struct Asked: Decodable {
    var ticket: Int
}

/// Nobody knows whether it is in force: `EX_TEMPFAIL` of sysexits.h.
private let unknownCode: Int32 = 75

/// Waits until the nodes have voted and switched, and says how.
private func follow(_ options: AdminOptions, _ ticket: Int) throws {
    let wait = RolloutWait(for: ticket, since: SystemClock.monotonic())
    while true {
        let body = try asked(options, "GET", "/api/config/rollout")
        let rolling = try decoded(RolloutStatus.self, body)
        guard let outcome = wait.outcome(rolling, at: SystemClock.monotonic()) else {
            Signals.pause(.milliseconds(20))
            continue
        }
        if options.json, outcome != .untold { print(String(decoding: body, as: UTF8.self), terminator: "") }
        return try tell(outcome, rolling, isJSON: options.json)
    }
}

private func tell(_ outcome: RolloutWait.Outcome, _ rolling: RolloutStatus, isJSON: Bool) throws {
    switch outcome {
    case .untold:
        printError("sluice: the node has not said in time how it ended: see its log")
        throw ExitCode(1)
    case .unknown:
        for line in rolling.errors { printError(line) }
        printError("sluice: the node knows when Redis answers it again: see /api/config/rollout, or `sluice nodes`")
        throw ExitCode(unknownCode)
    case .refused:
        for line in rolling.errors { printError(line) }
        let what = rolling.version > 0 ? "version \(rolling.version) is refused" : "nothing was proposed"
        printError("sluice: \(what): all nodes stay with theirs")
        throw ExitCode(1)
    case .switched:
        if !isJSON, !rolling.inForce.isEmpty {
            print("version \(rolling.version) is in force on \(rolling.inForce.joined(separator: ", "))")
        }
        if rolling.errors.isEmpty { return }
        for line in rolling.errors { printError(line) }
        printError(
            "sluice: version \(rolling.version) is the current one, and the nodes above try again: see `sluice nodes`")
        throw ExitCode(1)
    }
}

private func author() -> String {
    let environment = ProcessInfo.processInfo.environment
    let user = environment["SUDO_USER"] ?? environment["USER"] ?? environment["LOGNAME"] ?? "somebody"
    return escaped("\(user)@\(HostNames.local())")
}

extension Config {
    struct Push: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Give all nodes that follow another configuration, or none of them.",
            discussion: """
                Every node with `config: {from: redis}` checks it and votes. Where all agree it is in force on all; \
                where one refuses or is silent, on none, and the exit code is 1. Where Redis has not answered when all \
                had agreed, and not since, nobody knows, and the exit code is 75. What a node's own file says of itself \
                stays: gateway.port, admin, adminToken, workers, accessLog and watchConfig, \
                rateLimit.redisURL and decisionLog; --set of its command line stands above everything.
                """)

        @OptionGroup var options: AdminOptions
        @Argument(help: "The configuration, a YAML file.") var file: String

        func run() throws {
            guard let data = try? Data(contentsOf: URL(filePath: file)) else {
                printError("\(file): can not be read as a file")
                throw ExitCode(1)
            }
            let body = try asked(options, "POST", "/api/config/push?by=\(author())", body: Array(data))
            try follow(options, try decoded(Asked.self, body).ticket)
        }
    }

    struct Rollback: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Give all nodes a former version again, as a new one.",
            discussion: "The nodes vote on it as on any other. `sluice config history` lists the versions.")

        @OptionGroup var options: AdminOptions
        @Argument(help: "The number of the version.") var version: Int

        func run() throws {
            let body = try asked(options, "POST", "/api/config/rollback?to=\(version)&by=\(author())")
            try follow(options, try decoded(Asked.self, body).ticket)
        }
    }

    struct History: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List the versions that were proposed, and who goes by which.",
            discussion: "The last fifty are kept. A version that was refused says why.")

        @OptionGroup var options: AdminOptions

        private struct Versions: Decodable {
            struct Row: Decodable {
                var version: Int
                var at: String
                var by: String
                var note: String
                var hash: String
                var refusal: String?
            }
            var versions: [Row]
        }

        private struct Members: Decodable {
            struct Row: Decodable {
                var id: String
                var configuration: String?
            }
            var nodes: [Row]
        }

        func run() throws {
            let body = try asked(options, "GET", "/api/config/history")
            if options.json {
                print(String(decoding: body, as: UTF8.self), terminator: "")
                return
            }
            let nodes = try decoded(Members.self, try asked(options, "GET", "/api/nodes")).nodes
            let rows = try decoded(Versions.self, body).versions.map { version in
                let here = nodes.filter { $0.configuration == "\(version.version)" }.map(\.id)
                return [
                    "\(version.version)", version.at, version.by, version.hash,
                    here.isEmpty ? "-" : here.joined(separator: ","),
                    // A reason may have several lines.
                    [version.note, version.refusal.map { "refused: \($0.replacing("\n", with: "; "))" } ?? ""]
                        .filter { !$0.isEmpty }.joined(separator: "; "),
                ]
            }
            print(table([["VERSION", "AT", "BY", "HASH", "IN FORCE ON", "NOTE"]] + rows))
        }
    }
}
