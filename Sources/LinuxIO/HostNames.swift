import Glibc
public import Primitives

/// A host name that did not resolve.
public struct ResolutionError: Error, Sendable, CustomStringConvertible {
    public let host: String
    public let reason: String
    public var description: String { "\(host): \(reason)" }
}

public enum HostNames {
    /// The addresses of a name, in the order in which they should be tried (getaddrinfo(3), RFC 6724). Blocks: never
    /// call it on a loop. Refuses what is neither a name nor an address as `IPAddress` reads it.
    public static func resolve(_ host: String) throws(ResolutionError) -> [IPAddress] {
        if let literal = IPAddress(host) { return [literal] }
        // A C string ends at its first NUL: the name that is looked up would not be the one that was given.
        guard !host.utf8.contains(0) else { throw ResolutionError(host: host, reason: "a name holds no NUL") }
        guard !isNumeric(host) else {
            throw ResolutionError(host: host, reason: "neither a plain IPv4 or IPv6 address nor a name")
        }
        var hints = unsafe addrinfo()
        unsafe hints.ai_family = AF_UNSPEC
        unsafe hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        unsafe hints.ai_flags = AI_ADDRCONFIG
        var list: UnsafeMutablePointer<addrinfo>? = nil
        let code = unsafe getaddrinfo(host, nil, &hints, &list)
        guard code == 0 else {
            throw ResolutionError(host: host, reason: unsafe String(cString: gai_strerror(code)))
        }
        defer { unsafe freeaddrinfo(list) }
        var addresses: [IPAddress] = []
        var next = unsafe list
        while let entry = unsafe next {
            if let form = unsafe entry.pointee.ai_addr {
                var storage = sockaddr_storage()
                let length = unsafe min(Int(entry.pointee.ai_addrlen), MemoryLayout<sockaddr_storage>.size)
                unsafe memcpy(&storage, form, length)
                if let address = Socket.address(storage)?.ip, !addresses.contains(address) { addresses.append(address) }
            }
            unsafe next = entry.pointee.ai_next
        }
        guard !addresses.isEmpty else { throw ResolutionError(host: host, reason: "no address") }
        return addresses
    }

    /// Whether getaddrinfo(3) takes the text for an address without asking anyone. Of what `IPAddress` refuses, these
    /// are the forms of inet_aton(3), where `010.0.0.1` is 8.0.0.1 and `10.1` is 10.0.0.1, and addresses with a zone,
    /// which `IPAddress` cannot hold.
    private static func isNumeric(_ host: String) -> Bool {
        var hints = unsafe addrinfo()
        unsafe hints.ai_flags = AI_NUMERICHOST
        var list: UnsafeMutablePointer<addrinfo>? = nil
        guard unsafe getaddrinfo(host, nil, &hints, &list) == 0 else { return false }
        unsafe freeaddrinfo(list)
        return true
    }

    /// This machine's name.
    public static func local() -> String {
        var name = [CChar](repeating: 0, count: 256)
        guard unsafe gethostname(&name, 255) == 0 else { return "localhost" }
        return String(decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}
