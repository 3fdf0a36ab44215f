//! What the parser tells of a conversation.
