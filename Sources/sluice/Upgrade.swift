// `sluice upgrade`: a new binary takes the place of the running one.

import Admin
import ArgumentParser
import LinuxIO
import Primitives

struct Upgrade: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Let the binary and the configuration that lie there now take over from a running node.",
        discussion: """
            The node starts a new process from the path that it was started from itself, with the same arguments. The new \
            one listens on the same sockets, and once it serves, the old one finishes what it has begun. Where the new \
            one does not start, the old one goes on, and this command says why and exits 1. SIGUSR2 does the same.
            """)

    @OptionGroup var admin: AdminOptions

    @Option(help: ArgumentHelp("How long to wait for the new process.", valueName: "seconds"))
    var wait = 65

    func run() throws {
        let client = try admin.client()
        do {
            let before = try decoded(NodeProcess.self, try client.ask("GET", "/api/node"))
            let end = SystemClock.monotonic() + .seconds(Int64(max(1, wait)))
            let old = try asked(client, until: end)
            if let old { try Self.goesOn(old) }
            // It serves: where it listens for its operators here too, it says which it is.
            let isReplaced = old?.state == "replaced"
            let limit = isReplaced ? min(end, SystemClock.monotonic() + Self.sightTime) : end
            while SystemClock.monotonic() < limit {
                // In the moment of the change a connection may meet a process that has just left.
                if let body = try? client.ask("GET", "/api/node") {
                    let now = try decoded(NodeProcess.self, body)
                    if now.boot != before.boot {
                        print(Self.told(before, now, asJSON: admin.json))
                        return
                    }
                    try Self.goesOn(now)
                }
                _ = awaitReadable([], atMost: 50)
            }
            guard let old, isReplaced else {
                throw UpgradeError(description: "no new process within \(wait) s: see the node's log")
            }
            print(Self.toldUnseen(before, old.successor, asJSON: admin.json))
        } catch let code as ExitCode {
            throw code
        } catch {
            printError("sluice: \(error)")
            throw ExitCode(1)
        }
    }

    /// How long a process that serves may take to be seen where the old one has listened for its operators.
    private static let sightTime = TimeSpan.seconds(1)

    /// Asks over one connection, which hears how it ends wherever the new process listens. `nil` where the connection has
    /// not lived for so long.
    private func asked(_ client: AdminClient, until end: MonotonicTime) throws -> NodeProcess? {
        do {
            let patience = max(.seconds(1), end - SystemClock.monotonic())
            return try decoded(
                NodeProcess.self, try client.ask("POST", "/api/upgrade?wait=true", within: patience))
        } catch let error as AdminClient.AdminError {
            if error.isAnswer { throw error }
            return nil
        }
    }

    private static func goesOn(_ process: NodeProcess) throws {
        guard process.upgrade.state == "failed", process.state != "replaced" else { return }
        throw UpgradeError(description: "the old process goes on: \(process.upgrade.reason ?? "see its log")")
    }

    /// The new process serves, and not its operators at the address of the old one.
    private static func toldUnseen(_ before: NodeProcess, _ successor: Int32?, asJSON: Bool) -> String {
        guard asJSON else {
            let new = successor.map { "process \($0)" } ?? "another process"
            return "\(before.node): \(shown(before)) → \(new), whose admin listener is elsewhere, or off"
        }
        let new = successor.map { "\($0)" } ?? "null"
        return
            "{\"node\":\"\(before.node)\",\"pid\":[\(before.pid),\(new)],\"version\":[\"\(before.version)\",null]}"
    }

    private struct UpgradeError: Error, CustomStringConvertible { let description: String }

    private static func shown(_ process: NodeProcess) -> String { "process \(process.pid), version \(process.version)" }

    private static func told(_ before: NodeProcess, _ now: NodeProcess, asJSON: Bool) -> String {
        guard asJSON else { return "\(now.node): \(shown(before)) → \(shown(now))" }
        return
            "{\"node\":\"\(now.node)\",\"pid\":[\(before.pid),\(now.pid)],\"version\":[\"\(before.version)\",\"\(now.version)\"]}"
    }
}
