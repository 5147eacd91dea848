// Who may ask the admin listener what. Decided before anything else is looked at.
//
// On loopback everybody on the machine may read; elsewhere only who has the token, but for the two paths that balancers
// ask. Writes want the token always. A browser is a deputy that anybody's page can try to use, in two ways, and both are
// closed whatever the listener's address is:
// - A page asks from its own origin (CSRF). Browsers say so in Origin and Sec-Fetch-Site, and may send along a password
//   that they keep; such writes are refused.
// - A page's name is made to resolve to this machine (DNS rebinding), so that it is of the same origin as the listener.
//   Then Host holds that name. Without the token, only addresses and `localhost` are taken for ours.

import FoundationEssentials
import Primitives

struct AdminGate: Sendable {
    /// `nil`: nobody has it, so nobody may write.
    let token: String?
    /// Whether only this machine reaches the listener.
    let isLoopback: Bool

    /// What anybody may know: whether the node lives, and whether it wants traffic.
    private static let open: Set<String> = ["/healthz", "/readyz"]

    /// What to answer instead of what was asked; `nil`: it may be answered.
    func refusal(of request: SmallRequest) -> SmallAnswer? {
        let isWrite = request.method != "GET" && request.method != "HEAD"
        let hasToken = isAuthorized(request)
        if !isWrite, Self.open.contains(request.path) { return nil }
        guard hasToken || isOwnName(request.host) else {
            return .problem(421, "Host is not this machine's: ask by address, or with the token")
        }
        if isWrite, isForeign(request) { return .problem(403, "Pages of other origins may not write here") }
        guard isWrite || !isLoopback, !hasToken else { return nil }
        guard token != nil else { return .problem(403, "Set gateway.adminToken to allow writes here") }
        var answer = SmallAnswer.problem(401, "Authorization: Bearer with gateway.adminToken is needed")
        // A browser asks its user only for this scheme: any name, and the token as the password.
        answer.fields = "WWW-Authenticate: Bearer realm=\"sluice\"\r\n"
        if !isWrite { answer.fields += "WWW-Authenticate: Basic realm=\"sluice\", charset=\"UTF-8\"\r\n" }
        return answer
    }

    // MARK: The token

    private func isAuthorized(_ request: SmallRequest) -> Bool {
        guard let token, !token.isEmpty else { return false }
        let parts = request.authorization.split(separator: " ", maxSplits: 1)
        guard parts.count == 2 else { return false }
        switch parts[0].lowercased() {
        // RFC 6750 §2.1, RFC 7617 §2.
        case "bearer": return Self.isEqual(Array(parts[1].utf8), token)
        case "basic":
            guard let pair = Data(base64Encoded: String(parts[1])), let colon = pair.firstIndex(of: UInt8(ascii: ":"))
            else { return false }
            return Self.isEqual(Array(pair[(colon + 1)...]), token)
        default: return false
        }
    }

    /// Takes as long for a wrong token as for a right one of that length, so that it cannot be guessed byte by byte.
    private static func isEqual(_ a: [UInt8], _ token: String) -> Bool {
        let b = Array(token.utf8)
        var difference = a.count ^ b.count
        for i in a.indices { difference |= Int(a[i] ^ (b.isEmpty ? 0 : b[i % b.count])) }
        return difference == 0
    }

    // MARK: Browsers

    /// Whether a name or address in Host can only mean this machine, whoever asks: no page has an address for its name.
    func isOwnName(_ host: String) -> Bool {
        var name = host[...]
        if name.hasPrefix("[") {
            guard let end = name.firstIndex(of: "]") else { return false }
            return IPAddress(String(name[name.index(after: name.startIndex)..<end])) != nil
        }
        if let colon = name.lastIndex(of: ":") { name = name[..<colon] }
        let lower = name.lowercased()
        return lower == "localhost" || IPAddress(lower) != nil
    }

    private func isForeign(_ request: SmallRequest) -> Bool {
        // Fetch Metadata: `none` is the user's own doing.
        if !request.fetchSite.isEmpty, request.fetchSite != "same-origin", request.fetchSite != "none" { return true }
        guard !request.origin.isEmpty else { return false }
        return request.origin != "http://\(request.host)" && request.origin != "https://\(request.host)"
    }
}
