"""What a fresh server holds."""


async def bootstrap(registry): ...
