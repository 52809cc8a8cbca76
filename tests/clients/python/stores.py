"""The vector stores of LangChain, LlamaIndex and Haystack, unchanged, with texts whose embeddings are
made of their letters. Each makes its collection, fills it, searches with and without a filter,
deletes, and removes the collection.

Arguments: URL, API key.
"""

import math
import string
import sys

from qdrant_client import QdrantClient, models

url, key = sys.argv[1:3]
client = QdrantClient(url=url, api_key=key, check_compatibility=False, timeout=30)

TEXTS = {
    "red apple": "fruit",
    "green apple": "fruit",
    "red car": "machine",
    "blue bicycle": "machine",
}
SIZE = len(string.ascii_lowercase)


def embed(text: str) -> list[float]:
    counts = [float(text.count(letter)) for letter in string.ascii_lowercase]
    length = math.sqrt(sum(count * count for count in counts)) or 1.0
    return [count / length for count in counts]


def remove(collection: str) -> None:
    client.delete_collection(collection)
    assert not client.collection_exists(collection)


def langchain() -> None:
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_qdrant import QdrantVectorStore

    class Letters(Embeddings):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return [embed(text) for text in texts]

        def embed_query(self, text: str) -> list[float]:
            return embed(text)

    documents = [
        Document(page_content=text, metadata={"kind": kind}) for text, kind in TEXTS.items()
    ]
    store = QdrantVectorStore.from_documents(
        documents, Letters(), url=url, api_key=key, collection_name="langchain"
    )
    found = store.similarity_search_with_score("red apple", k=2)
    assert found[0][0].page_content == "red apple", found
    assert found[0][1] > found[1][1], found
    machines = models.Filter(
        must=[
            models.FieldCondition(
                key="metadata.kind", match=models.MatchValue(value="machine")
            )
        ]
    )
    found = store.similarity_search("red apple", k=9, filter=machines)
    assert {it.page_content for it in found} == {"red car", "blue bicycle"}, found
    found = store.max_marginal_relevance_search("apple", k=2, fetch_k=4)
    assert len(found) == 2, found
    [number] = store.add_documents([Document(page_content="grey stone")])
    assert store.get_by_ids([number])[0].page_content == "grey stone"
    assert store.delete([number])
    assert store.get_by_ids([number]) == []
    # An index that is there is taken up.
    again = QdrantVectorStore.from_existing_collection(
        embedding=Letters(), url=url, api_key=key, collection_name="langchain"
    )
    assert again.similarity_search("blue bicycle", k=1)[0].page_content == "blue bicycle"
    remove("langchain")


def llama_index() -> None:
    from llama_index.core.schema import TextNode
    from llama_index.core.vector_stores.types import (
        MetadataFilter,
        MetadataFilters,
        VectorStoreQuery,
    )
    from llama_index.vector_stores.qdrant import QdrantVectorStore

    store = QdrantVectorStore("llama_index", client=client)
    nodes = [
        TextNode(text=text, metadata={"kind": kind}, embedding=embed(text))
        for text, kind in TEXTS.items()
    ]
    assert len(store.add(nodes)) == len(TEXTS)
    ask = VectorStoreQuery(query_embedding=embed("red apple"), similarity_top_k=2)
    found = store.query(ask)
    assert found.nodes[0].get_content() == "red apple", found
    filters = MetadataFilters(filters=[MetadataFilter(key="kind", value="machine")])
    ask = VectorStoreQuery(
        query_embedding=embed("red apple"), similarity_top_k=9, filters=filters
    )
    found = store.query(ask)
    assert {it.get_content() for it in found.nodes} == {"red car", "blue bicycle"}, found
    assert len(store.get_nodes([nodes[0].node_id])) == 1
    store.delete_nodes([nodes[0].node_id])
    assert client.count("llama_index").count == len(TEXTS) - 1
    store.clear()
    assert not client.collection_exists("llama_index")


def haystack() -> None:
    from haystack import Document
    from haystack.document_stores.types import DuplicatePolicy
    from haystack.utils import Secret
    from haystack_integrations.components.retrievers.qdrant import QdrantEmbeddingRetriever
    from haystack_integrations.document_stores.qdrant import QdrantDocumentStore

    store = QdrantDocumentStore(
        url=url,
        api_key=Secret.from_token(key),
        index="haystack",
        embedding_dim=SIZE,
        payload_fields_to_index=[{"field_name": "meta.kind", "field_schema": "keyword"}],
    )
    documents = [
        Document(content=text, meta={"kind": kind}, embedding=embed(text))
        for text, kind in TEXTS.items()
    ]
    assert store.write_documents(documents, policy=DuplicatePolicy.OVERWRITE) == len(TEXTS)
    assert store.count_documents() == len(TEXTS)
    retriever = QdrantEmbeddingRetriever(document_store=store, top_k=2)
    found = retriever.run(query_embedding=embed("red apple"))["documents"]
    assert found[0].content == "red apple", found
    machines = {"field": "meta.kind", "operator": "==", "value": "machine"}
    found = store.filter_documents(machines)
    assert {it.content for it in found} == {"red car", "blue bicycle"}, found
    found = retriever.run(query_embedding=embed("red apple"), filters=machines)["documents"]
    assert found[0].content == "red car", found
    store.delete_documents([documents[0].id])
    assert store.count_documents() == len(TEXTS) - 1
    remove("haystack")


for store in (langchain, llama_index, haystack):
    store()
print("stores: done")
