//! The HTTP API and the web chat: wire types, keys, ledger, chats.
