// `sluice backends` and `sluice nodes`: what a node knows of the cluster, and an operator's word about a backend.

import ArgumentParser
import FoundationEssentials
import LinuxIO
import Primitives

struct Backends: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Show the backends, or say a word that stands above their probes.",
        discussion: """
            Asks the admin listener of one node, which knows the view of all. Default: 127.0.0.1:9901.
            A word is kept in Redis, holds on every node and survives restarts, until it is taken back.
            """,
        subcommands: [List.self, Drain.self, Undrain.self, Down.self, Up.self],
        defaultSubcommand: List.self)

    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Show the backends (the default).")

        @OptionGroup var options: AdminOptions
        @Option(help: "Only of this service.") var service: String?

        func run() throws {
            let body = try asked(options, "GET", "/api/backends")
            if options.json {
                print(String(decoding: body, as: UTF8.self), terminator: "")
                return
            }
            let answer = try decoded(Listing.self, body)
            var rows = [["SERVICE", "BACKEND", "STATE", "SINCE", "VOTES", "IN FLIGHT", "WORD", "LAST ERROR", "REASON"]]
            for row in answer.backends where service == nil || row.service == service {
                let down = row.votes.filter { $0.value == "down" }.keys.sorted()
                let votes =
                    down.isEmpty
                    ? "0/\(row.votes.count)" : "\(down.count)/\(row.votes.count) \(down.joined(separator: ","))"
                let state =
                    row.available == (row.state == "up")
                    ? row.state : "\(row.state), \(row.available ? "used" : "not used") here"
                rows.append([
                    row.service, row.url, state, row.since, votes,
                    row.clusterInFlight.map { "\(row.inFlight) of \($0)" } ?? "\(row.inFlight)",
                    row.operator.map { "\($0.word) by \($0.by)" } ?? "-", row.lastError ?? "-", row.reason,
                ])
            }
            print(table(rows))
        }
    }

    private struct Listing: Decodable {
        struct Row: Decodable {
            var service: String
            var url: String
            var state: String
            var available: Bool
            var since: String
            var reason: String
            var votes: [String: String]
            var `operator`: Word?
            var lastError: String?
            var inFlight: Int
            var clusterInFlight: Int?
        }
        struct Word: Decodable {
            var word: String
            var by: String
        }
        var backends: [Row]
    }

    struct Target: ParsableArguments {
        @OptionGroup var options: AdminOptions
        @Argument(help: "The backend's URL, as the configuration writes it.") var url: String
        @Option(help: "Only of this service. Default: every service that has it.") var service: String?

        func say(_ word: String) throws {
            let environment = ProcessInfo.processInfo.environment
            let user = environment["SUDO_USER"] ?? environment["USER"] ?? environment["LOGNAME"] ?? "somebody"
            var target = "/api/backends/\(word)?url=\(escaped(url))&by=\(escaped("\(user)@\(HostNames.local())"))"
            if let service { target += "&service=\(escaped(service))" }
            let body = try asked(options, "POST", target)
            if options.json {
                print(String(decoding: body, as: UTF8.self), terminator: "")
            } else {
                let said = try decoded(Said.self, body)
                print("\(url) of \(said.services.joined(separator: ", ")): \(word)")
            }
        }

        private struct Said: Decodable { var services: [String] }

        private func escaped(_ text: String) -> String {
            var result = ""
            for byte in text.utf8 {
                switch byte {
                case 0x30...0x39, 0x41...0x5a, 0x61...0x7a: result.unicodeScalars.append(Unicode.Scalar(byte))
                default: result += "%" + (byte < 16 ? "0" : "") + String(byte, radix: 16)
                }
            }
            return result
        }
    }

    struct Drain: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Send it no new requests; those under way end in peace.")
        @OptionGroup var target: Target
        func run() throws { try target.say("drain") }
    }

    struct Undrain: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Take back whatever was said of it: probes and traffic decide again.")
        @OptionGroup var target: Target
        func run() throws { try target.say("undrain") }
    }

    struct Down: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Hold it down, whatever its probes say.")
        @OptionGroup var target: Target
        func run() throws { try target.say("down") }
    }

    struct Up: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Hold it up, whatever its probes say.")
        @OptionGroup var target: Target
        func run() throws { try target.say("up") }
    }
}

struct Nodes: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Show the living nodes of the cluster.",
        discussion: "Asks the admin listener of one node. Default: 127.0.0.1:9901.")

    @OptionGroup var options: AdminOptions

    private struct Listing: Decodable {
        struct Row: Decodable {
            var id: String
            var address: String
            var lastSeen: String
        }
        var nodes: [Row]
    }

    func run() throws {
        let body = try asked(options, "GET", "/api/nodes")
        if options.json {
            print(String(decoding: body, as: UTF8.self), terminator: "")
            return
        }
        print(
            table(
                [["NODE", "ADDRESS", "LAST SEEN"]]
                    + (try decoded(Listing.self, body)).nodes.map { [$0.id, $0.address, $0.lastSeen] }))
    }
}

/// The answer, or a line on standard error and exit code 1.
private func asked(_ options: AdminOptions, _ method: String, _ target: String) throws -> [UInt8] {
    let client = try options.client()
    do {
        return try client.ask(method, target)
    } catch {
        printError("sluice: \(error)")
        throw ExitCode(1)
    }
}

private func decoded<T: Decodable>(_ type: T.Type, _ body: [UInt8]) throws -> T {
    do {
        return try JSONDecoder().decode(type, from: Data(body))
    } catch {
        printError("sluice: the node's answer is of another shape: is it of another version?")
        throw ExitCode(1)
    }
}
